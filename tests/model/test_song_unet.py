"""DDPM++ and NCSN++ against their published sizes, and their options against what they claim.

What they compute is compared with the published code's numbers in `tests/interop/test_edm.py`.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.model import SongUNet
from diffusion_lit.model.song_block import NEARLY_ZERO, Resample, ScaledAttention, SongBlock, downsample, upsample
from tests.launch import config

NCSNPP = {"noise_embedding": "fourier", "resample_filter": [1, 3, 3, 1], "pyramid": True}


def small(**options: object) -> SongUNet:
    settings = {
        "resolution": 8,
        "image_channels": 1,
        "channels": 16,
        "channel_multipliers": (1, 2),
        "num_res_blocks": 2,
    }
    return SongUNet(**{**settings, **options})  # type: ignore[arg-type]


def randomise(network: nn.Module) -> None:
    """Undo the initialisation near zero, behind which every path is nearly the same."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize(
    ("name", "resolution", "options", "parameters"),
    [
        # counted on the networks that NVlabs/edm's train.py builds; of NCSN++, here, 128 random frequencies more
        ("ddpmpp", 32, {"num_classes": 10}, 55_735_299),
        ("ncsnpp", 32, {"num_classes": 10}, 56_400_643 + 128),
        ("ddpmpp", 64, {"num_classes": None, "channel_multipliers": [1, 2, 2, 2]}, 61_805_571),
        ("ncsnpp", 64, {"num_classes": None, "channel_multipliers": [1, 2, 2, 2]}, 62_761_091 + 128),
    ],
)
def test_the_sizes_are_the_published_ones(
    name: str, resolution: int, options: dict[str, object], parameters: int, tmp_path: Path
) -> None:
    cfg = config(tmp_path, f"model={name}", tiny=False)
    cfg.model.update(resolution=resolution, image_channels=3, augmentation_dim=9, **options)
    with torch.device("meta"):
        network = instantiate(cfg.model)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_attention_follows_each_block_going_down_and_the_last_going_up() -> None:
    network = small(attention_resolutions=(8,), num_res_blocks=3)
    where = [name for name, layer in network.named_modules() if isinstance(layer, ScaledAttention)]
    down, up = [f"down.0.{i}.attention" for i in range(3)], ["up.1.3.attention"]
    assert where == [*down, "middle.0.attention", *up]


def gains(network: nn.Module) -> Iterator[tuple[str, float]]:
    """How much larger a layer's weights are than those of Glorot & Bengio's uniform distribution, by their variance."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            assert layer.bias is None or not layer.bias.any(), name
            fans = (layer.weight.shape[0] + layer.weight.shape[1]) * layer.weight[0, 0].numel()
            bound = math.sqrt(6 / fans)
            gain = float(layer.weight.detach().std()) / (bound / math.sqrt(3))
            assert float(layer.weight.detach().abs().max()) <= 1.3 * gain * bound, (
                name
            )  # uniform; a normal one reaches 2
            yield name, gain


def test_layers_begin_as_the_published_code_s() -> None:
    """networks.py, SongUNet: init, init_zero and init_attn."""
    torch.manual_seed(0)
    network = small(channels=32, attention_resolutions=(8,), num_classes=10, augmentation_dim=9, **NCSNPP)
    expected = {"conv_2": NEARLY_ZERO, "attention.out": NEARLY_ZERO, "last.2": NEARLY_ZERO, "attention.qkv": 0.2**0.5}
    found = dict(gains(network))
    for name, gain in found.items():
        wanted = next((value for end, value in expected.items() if name.endswith(end)), 1.0)
        assert gain == pytest.approx(wanted, rel=0.15), name
    assert {name.split(".")[0] for name in found} == {name for name, _ in network.named_children()} - {"noise"}
    assert float(network.noise.frequencies.std()) == pytest.approx(16, rel=0.3)


@pytest.mark.parametrize("options", [{}, NCSNPP], ids=["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize("num_classes", [None, 10])
def test_every_parameter_learns_but_the_random_frequencies(options: dict[str, object], num_classes: int | None) -> None:
    network = small(attention_resolutions=(8, 4), num_classes=num_classes, augmentation_dim=9, **options)
    randomise(network)
    x, c_noise = torch.randn(3, 1, 8, 8), torch.tensor([-1.5, 0.0, 1.0])
    label = torch.tensor([0, 9, NO_CLASS]) if num_classes else None
    network(x, c_noise, Condition(label, torch.randn(3, 9))).square().mean().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unused == (["noise.frequencies"] if options else [])


@pytest.mark.parametrize("options", [{}, NCSNPP], ids=["ddpmpp", "ncsnpp"])
def test_images_that_are_no_squares_do_not_mix(options: dict[str, object]) -> None:
    network = small(resolution=[16, 8], num_classes=3, attention_resolutions=(4,), **options).eval()
    attending = [name for name, layer in network.named_modules() if isinstance(layer, ScaledAttention)]
    assert attending[0] == "down.1.0.attention" and network.image_shape == (1, 16, 8)  # 8 x 4: by the shorter side
    randomise(network)
    x, t, label = torch.randn(3, 1, 16, 8), torch.tensor([-1.5, 0.0, 1.0]), Condition(torch.tensor([0, 2, NO_CLASS]))
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, t, label), alone, rtol=1e-4, atol=1e-5)


def test_time_class_and_augmentation_change_the_output_and_none_is_no_class() -> None:
    network = small(num_classes=3, augmentation_dim=2).eval()
    randomise(network)
    x, t = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 0.3)
    outputs = network(x, t, Condition(torch.tensor([0, 1, 2, NO_CLASS])))
    assert all((outputs[i] - outputs[j]).abs().max() > 1e-3 for i, j in itertools.combinations(range(4), 2))
    torch.testing.assert_close(network(x, t, UNCONDITIONAL)[0], outputs[3])
    assert (network(x, t + 1, UNCONDITIONAL) - network(x, t, UNCONDITIONAL)).abs().max() > 1e-3
    left = Condition(augment_label=torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    augmented = network(x[:2], t[:2], left)
    torch.testing.assert_close(augmented[0], outputs[3])
    assert (augmented[1] - outputs[3]).abs().max() > 1e-3


def test_a_block_equals_its_formula() -> None:
    silu = nn.functional.silu
    block = SongBlock(8, 8, 6, 4, resample=downsample([1, 3, 3, 1]), attention=ScaledAttention(8, 4)).eval()
    randomise(block)
    x, emb = torch.randn(2, 8, 6, 6), torch.randn(2, 6)
    h = block.norm_2(block.conv_1(block.resample(silu(block.norm_1(x)))) + block.emb(silu(emb))[:, :, None, None])
    y = (block.skip(block.resample(x)) + block.conv_2(silu(h))) / math.sqrt(2)
    q, k, v = block.attention.qkv(block.attention.norm(y)).reshape(2, 3, 8, 9).unbind(1)
    mixed = torch.einsum("bij,bcj->bci", torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), -1), v)
    expected = (y + block.attention.out(mixed.reshape(2, 8, 3, 3))) / math.sqrt(2)
    torch.testing.assert_close(block(x, emb), expected)
    assert {(norm.num_groups, norm.eps) for norm in block.modules() if isinstance(norm, nn.GroupNorm)} == {(2, 1e-6)}


def test_the_box_filter_is_a_mean_and_a_repetition() -> None:
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(downsample([1, 1])(x), Resample([1, 1])(x))
    torch.testing.assert_close(upsample([2, 2])(x), upsample([1, 1])(x))
    assert isinstance(downsample([1, 1]), nn.AvgPool2d) and isinstance(upsample([2, 2]), Resample)


def test_a_filter_keeps_what_is_flat_but_at_the_border() -> None:
    x, taps = torch.ones(1, 2, 8, 8), [1, 3, 3, 1]
    small, large = downsample(taps)(x), upsample(taps)(x)
    assert small.shape[2:] == (4, 4) and large.shape[2:] == (16, 16)
    torch.testing.assert_close(small[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    torch.testing.assert_close(large[..., 1:-1, 1:-1], torch.ones(1, 2, 14, 14))
    assert downsample(taps, padded=False)(x).shape[2:] == (3, 3)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"resolution": 9}, ["9", "8 and 10", "data.resolution"]),
        ({"resolution": [8, 28], "channel_multipliers": (1, 2, 2, 2)}, ["[8, 28] is not; [8, 24] and [8, 32] are"]),
        ({"image_channels": 0}, ["at least 1", "0"]),
        ({"channels": 0}, ["model.channels must be at least 1"]),
        ({"num_res_blocks": 0}, ["model.num_res_blocks", "at least 1", "0"]),
        ({"noise_embedding": "sines"}, ["positional or fourier", "sines"]),
        ({"resample_filter": [1, 2, 1]}, ["resample_filter", "[1, 2, 1]", "[1,3,3,1]"]),
        ({"channels": 18}, ["18 channels", "num_groups=32"]),
        ({"channels": 144}, ["144 channels", "num_groups=32"]),
        ({"head_channels": 3, "attention_resolutions": (8,)}, ["head_channels=3"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error, torch.device("meta"):
        small(**options)
    assert all(word in str(error.value) for word in words), str(error.value)
