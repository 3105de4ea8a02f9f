"""The diffusion transformer against its formulas, the published sizes and their code's initial weights."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop import dit as public
from diffusion_lit.model import DiT
from diffusion_lit.model.dit import SelfAttention, TransformerBlock
from diffusion_lit.parameterization import VelocityParameterization
from diffusion_lit.position import sin_cos_positions
from diffusion_lit.sampler import EulerSampler
from diffusion_lit.schedule import FlowSchedule
from tests.launch import config
from tests.networks import randomise

PUBLISHED: dict[str, int] = json.loads((Path(__file__).parents[1] / "fixtures" / "dit.json").read_text())["parameters"]


def small(**options: object) -> DiT:
    settings = {"resolution": 8, "image_channels": 2, "channels": 16, "depth": 2, "num_heads": 2}
    return DiT(**{**settings, **options})  # type: ignore[arg-type]


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size, millions", [("s", 33), ("b", 130), ("l", 458), ("xl", 675)])
def test_published_sizes(size: str, millions: float, tmp_path: Path) -> None:
    """To the parameter, from our settings file and from the flags of their scripts; table 1 has the millions."""
    cfg = config(tmp_path, f"model=dit_{size}", tiny=False).model
    cfg.update(resolution=32, image_channels=4, num_classes=1000, augmentation_dim=0, learn_variance=True)
    for cfg.patch_size in (2, 4, 8):
        model = f"DiT-{size.upper()}/{cfg.patch_size}"
        assert public.network_settings({"model": model}) == cfg
        with torch.device("meta"):
            assert count(instantiate(cfg)) == PUBLISHED[model]
    assert PUBLISHED[f"DiT-{size.upper()}/2"] == pytest.approx(millions * 1e6, rel=0.005)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    table = sin_cos_positions(3, 5, 16).double().numpy()
    for row, column in itertools.product(range(3), range(5)):
        angles = [place * 10_000 ** (-np.arange(4) / 4) for place in (column, row)]
        expected = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)])
        np.testing.assert_allclose(table[5 * row + column], expected, atol=1e-7)
    with pytest.raises(ValueError, match="multiple of 4"):
        sin_cos_positions(2, 2, 6)


def test_positions_survive_half_precision() -> None:
    network = small().to(torch.bfloat16)
    assert torch.equal(network.positions.table, sin_cos_positions(4, 4, 16))


def test_tokens_are_patches_row_by_row() -> None:
    """Without blocks that mix, what one patch holds stays in its place; pixels within a patch keep theirs."""
    network = small(patch_size=4, image_channels=1, channels=16, num_heads=1)
    with torch.no_grad():
        network.first.weight.copy_(torch.eye(16).view(16, 1, 4, 4))
        network.positions.table.zero_()
        network.last.linear.weight.copy_(torch.eye(16))
    network.last.norm = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(network(x, torch.zeros(2), UNCONDITIONAL), x)


def test_attention_equals_its_formula() -> None:
    attention = SelfAttention(channels=8, num_heads=2)
    randomise(attention)
    h = torch.randn(2, 5, 8)
    q, k, v = attention.qkv(h).reshape(2, 5, 3, 2, 4).unbind(2)  # [B, N, heads, C]
    weights = torch.softmax(torch.einsum("bihc,bjhc->bhij", q, k) / 4**0.5, dim=-1)
    expected = attention.out(torch.einsum("bhij,bjhc->bihc", weights, v).reshape(2, 5, 8))
    torch.testing.assert_close(attention(h), expected)


def test_a_block_is_the_identity_at_first_and_then_its_formula() -> None:
    block = TransformerBlock(8, num_heads=2, mlp_channels=12, mlp_norm_eps=0.1)
    h, emb = torch.randn(2, 5, 8), torch.randn(2, 8)
    assert torch.equal(small().layers[0](torch.ones(2, 5, 16), torch.ones(2, 16)), torch.ones(2, 5, 16))

    def norm(h: torch.Tensor, eps: float) -> torch.Tensor:
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + eps).sqrt()

    b_1, s_1, g_1, b_2, s_2, g_2 = block.modulation(emb).reshape(2, 6, 1, 8).unbind(1)
    middle = h + g_1 * block.attention((1 + s_1) * norm(h, 1e-6) + b_1)
    hidden = block.mlp[0]((1 + s_2) * norm(middle, 0.1) + b_2)
    gelu = hidden / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    torch.testing.assert_close(block(h, emb), middle + g_2 * block.mlp[2](gelu))


def test_initial_weights_are_as_published() -> None:
    torch.manual_seed(0)
    network = small(channels=64, num_heads=4, patch_size=4, num_classes=400)
    weights = dict(network.named_parameters())
    zeros = {name for name, weight in weights.items() if not weight.any()}
    biases = {name for name in weights if name.endswith("bias")}
    modulated = {name for name in weights if "modulation" in name or name.startswith("last.linear")}
    assert zeros == biases | modulated
    for name in ("time.layers.0.weight", "time.layers.2.weight", "label.weight"):
        assert weights[name].detach().std() == pytest.approx(0.02, rel=0.05)
    xavier = {"first": (2 * 16, 64), "layers.1.attention.qkv": (64, 192), "layers.0.mlp.0": (64, 256)}
    for name, fans in xavier.items():
        limit = (6 / sum(fans)) ** 0.5
        weight = weights[f"{name}.weight"].detach()
        assert 0.97 * limit < weight.abs().max() <= limit and weight.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert network(torch.randn(2, 2, 8, 8), torch.zeros(2), UNCONDITIONAL).abs().max() == 0


def test_time_and_images_reach_the_output_and_do_not_mix() -> None:
    network = small(num_classes=3).eval()
    randomise(network)
    x, t, given = torch.randn(4, 2, 8, 8), torch.tensor([1.0, 5.0, 50.0, 999.0]), Condition(torch.tensor([0, 1, 2, -1]))
    output = network(x, t, given)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], given[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(output, alone, rtol=1e-4, atol=1e-5)
    assert (network(x, t + 1, given) - output).abs().amax((1, 2, 3)).min() > 1e-4


def test_sit_is_this_network_on_the_straight_path() -> None:
    """Ma et al. 2024 have x_t = (1 - t) x_0 + t eps and the velocity eps - x_0, as here; their code has it backwards.

    Its time u = 1 - t runs from noise to data along the velocity data - noise, which is minus the network's output. The
    network receives 1000 t where theirs receives u.
    """
    network, num_steps, seen = small(num_classes=3).eval(), 4, []
    randomise(network)
    network.register_forward_pre_hook(lambda _, given: seen.append(given[1][0].item()))
    denoiser = Denoiser(network, FlowSchedule(), VelocityParameterization())
    noise, label = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), Condition(torch.tensor([0, 2]))
    with torch.no_grad():
        drawn = EulerSampler(num_steps, clip=None)(denoiser, lambda: noise, label)
        assert seen == pytest.approx([1000, 750, 500, 250])
        x = noise
        for i in range(num_steps):
            u = torch.full((2,), i / num_steps)
            x = x - network(x, 1000 * (1 - u), label) / num_steps
    torch.testing.assert_close(drawn, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"resolution": 9}, ["9", "8 and 10", "data.resolution", "model.patch_size"]),
        ({"resolution": [8, 2], "patch_size": 4}, ["2", "4 and 8"]),
        ({"image_channels": 0}, ["image_channels", "at least 1", "0"]),
        ({"patch_size": 0}, ["patch_size", "at least 1"]),
        ({"depth": 0}, ["depth", "at least 1"]),
        ({"num_heads": 3}, ["channels=16", "num_heads=3"]),
        ({"channels": 6}, ["channels=6", "multiple of 4"]),
        ({"mlp_ratio": 0.01}, ["mlp_ratio=0.01", "4 is usual"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        small(**options)
    assert all(word in str(error.value) for word in words)
