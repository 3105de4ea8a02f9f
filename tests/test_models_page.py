"""The table of networks in docs/models.md: up to date, and its arithmetic and memory counted right."""

from pathlib import Path

import models
import pytest
import torch

from diffusion_lit.condition import Condition
from diffusion_lit.model import DiT, UNet
from tests.launch import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
AGAIN = "python benchmark/models.py docs/models.md"
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
QUICK = ("dit_tiny",)


def test_every_network_has_its_row_and_the_row_its_size() -> None:
    assert [row[0] for row in ROWS] == [f"`{name}`" for name in models.members()], f"run {AGAIN}"
    for name, row in zip(models.members(), ROWS, strict=True):
        assert row[:4] == models.size(name, models.on_meta(name)) and row[6] == models.source(name), f"run {AGAIN}"
    assert models.page(ROWS) == PAGE, f"run {AGAIN}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in models.IMAGES]
)
def test_arithmetic_and_memory_are_up_to_date(name: str) -> None:
    assert ROWS[models.members().index(name)] == models.row(name), f"run {AGAIN}"


def test_a_network_without_a_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"conf/model/new.yaml needs a line in IMAGES"):
        models.settings("new")


def test_arithmetic_equals_a_count_by_hand() -> None:
    """Of a transformer: two for each weight and token, and two products of queries, keys and values."""
    n, d, depth, patch, channels, classes = 16, 32, 3, 2, 3, 5
    with torch.device("meta"):
        network = DiT(8, channels, patch, d, depth, num_heads=4, num_classes=classes)
    block = n * (4 * d**2 + 8 * d**2) + 2 * n**2 * d + 6 * d**2
    ends = 2 * n * patch**2 * channels * d + 2 * d**2  # the last norm's modulation
    assert models.forward_flops(network) == 2 * (depth * block + ends + 256 * d + d**2)


def test_memory_equals_a_count_by_hand() -> None:
    """Of a transformer's block: what each layer's gradient needs of its input or output, float32, for one image."""
    n, d, heads, hidden = 16, 32, 4, 128
    with torch.device("meta"):
        shallow, deep = (DiT(8, 3, 2, d, depth, heads) for depth in (1, 2))
    norms = 2 * (3 * n * d + 2 * n)  # input, output, the modulated output; mean and deviation
    attention = 3 * n * d + n * d + n * heads  # queries, keys, values; the output; the softmax's sums
    mlp = 2 * n * hidden  # before and after the activation function
    gated = 2 * n * d  # each branch's output
    modulation = 6 * d + 2 * d  # all of it, and one plus each scale
    block = norms + attention + mlp + gated + modulation
    assert models.activation_bytes(deep) - models.activation_bytes(shallow) == 4 * block


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_memory_is_what_a_cpu_keeps(kind: str) -> None:
    """The same count of a network that really runs; the transformer with fused attention, the U-Net without."""
    generator = torch.Generator().manual_seed(0)

    def build() -> UNet | DiT:
        if kind == "dit":
            return DiT(8, 1, channels=16, depth=2, num_heads=2)
        return UNet(8, 1, 8, (1, 2), 1, attention_resolutions=(8,), num_groups=4)

    with torch.device("meta"):
        counted = models.activation_bytes(build())
    network, kept = build(), []
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    for batch in (1, 2):
        storages: dict[int, torch.UntypedStorage] = {}

        def save(saved: torch.Tensor, storages: dict[int, torch.UntypedStorage] = storages) -> torch.Tensor:
            if saved.untyped_storage().data_ptr() not in own:
                storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
            return saved

        x = torch.randn(batch, 1, 8, 8, generator=generator)
        with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved):
            _output = network(x, torch.zeros(batch), Condition())
        kept.append(sum(storage.nbytes() for storage in storages.values()))
    assert counted == pytest.approx(kept[1] - kept[0], rel=0.03)
