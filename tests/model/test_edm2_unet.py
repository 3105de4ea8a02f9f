"""EDM2's network: published sizes, and magnitudes that are kept. Its outputs: tests/interop/test_edm2.py."""

import itertools
import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.model import EDM2UNet
from diffusion_lit.model.edm2_block import CosineAttention, MPBlock
from diffusion_lit.model.magnitude import (
    MPConv,
    MPFourier,
    MPLinear,
    UnitWeight,
    force_unit_weights,
    mp_cat,
    mp_silu,
    mp_sum,
    normalized,
)
from tests.hydra_shortcuts import composed


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def small(**options: object) -> EDM2UNet:
    settings = {"resolution": 8, "image_channels": 1, "channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1}
    return EDM2UNet(**{**settings, "attention_resolutions": (8, 4), "head_channels": 4, **options})  # type: ignore[arg-type]


def awake(network: EDM2UNet) -> EDM2UNet:
    """With gains that are not 0, behind which every path is the same."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("gain"):
                p.fill_(0.5)
    return network


def magnitude(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "millions"),  # Karras et al. 2024, table 2, of ImageNet-512's latents
    [("xs", 125), ("s", 280), ("m", 498), ("l", 777), ("xl", 1119), ("xxl", 1523)],
)
def test_sizes_are_the_published_ones(name: str, millions: float) -> None:
    settings = composed([f"model=edm2_{name}"]).model
    settings.update(resolution=64, image_channels=4, num_classes=1000)
    with torch.device("meta"):
        network = instantiate(settings)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


def test_the_parts_keep_the_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, channels, 16, 16, generator=generator) for channels in (24, 24))
    wide = torch.randn(64, 72, 16, 16, generator=generator)
    features = MPFourier(512)(torch.linspace(-1, 1, 999))
    parts = {
        "silu": mp_silu(a),
        "sum": mp_sum(a, b, 0.3),
        "cat": mp_cat(a, wide, 0.5),
        "convolution": MPConv(24, 48, 3)(a)[:, :, 1:-1, 1:-1],  # zeros around the image count as inputs
        "fourier": features,
        "linear": MPLinear(512, 256)(torch.randn(999, 512, generator=generator)),
        "label": small(num_classes=7).embedded(torch.arange(7), 7),
        "normalized": normalized(7 * a, dim=1),
    }
    assert {name: magnitude(x) for name, x in parts.items()} == pytest.approx(dict.fromkeys(parts, 1.0), abs=0.05)
    joined = mp_cat(a, wide, 0.5)
    assert magnitude(joined[:, :24]) * math.sqrt(24) == pytest.approx(
        magnitude(joined[:, 24:]) * math.sqrt(72), rel=0.02
    )


def test_a_whole_network_keeps_the_magnitude() -> None:
    """After random weights of any length, at each block's output."""
    network, seen = awake(small(num_classes=3, attention_resolutions=(4,))), []
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, UnitWeight):
                layer.weight.mul_(37)
    for block in network.blocks():
        block.register_forward_hook(lambda module, args, output: seen.append(magnitude(output)))
    network.eval()(torch.randn(32, 1, 8, 8), torch.randn(32), Condition(torch.arange(32) % 3))
    assert len(seen) == 3 + 7 and min(seen) > 0.7 and max(seen) < 1.4


def test_weights_are_forced_to_unit_magnitude_and_that_changes_no_output() -> None:
    network = awake(small(num_classes=3))
    x, c_noise, condition = torch.randn(4, 1, 8, 8), torch.randn(4), Condition(torch.tensor([0, 1, 2, NO_CLASS]))
    before = network(x, c_noise, condition)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, UnitWeight):
                layer.weight.mul_(3)
    force_unit_weights(network)
    rows = [row for layer in network.modules() if isinstance(layer, UnitWeight) for row in layer.weight.flatten(1)]
    assert [magnitude(row) for row in rows] == pytest.approx([1] * len(rows), abs=1e-3)
    torch.testing.assert_close(network(x, c_noise, condition), before, rtol=1e-3, atol=1e-3)
    once = {name: p.detach().clone() for name, p in network.named_parameters()}
    force_unit_weights(network)  # of accumulated batches, or a step that was left out
    for name, p in network.named_parameters():
        torch.testing.assert_close(p, once[name], rtol=2e-4, atol=0)


def test_attention_equals_its_formula() -> None:
    attention = CosineAttention(channels=8, head_channels=4)
    x = torch.randn(2, 8, 3, 5)
    qkv = attention.qkv(x).reshape(2, 2, 4, 3, 15)  # [B, heads, C, q k v, pixels]
    q, k, v = (qkv / (1e-4 + qkv.square().mean(2, keepdim=True).sqrt())).unbind(3)
    weights = torch.softmax(torch.einsum("bhci,bhcj->bhij", q, k) / 2, dim=-1)
    expected = attention.out(torch.einsum("bhij,bhcj->bhci", weights, v).reshape(2, 8, 3, 5))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("num_classes, learn_variance", list(itertools.product([None, 3], [False, True])))
def test_every_parameter_learns(num_classes: int | None, learn_variance: bool) -> None:
    network = awake(small(num_classes=num_classes, learn_variance=learn_variance, resolution=[8, 12]))
    x, c_noise = torch.randn(3, 1, 8, 12), torch.randn(3)
    output = network(x, c_noise, Condition(torch.tensor([0, 2, NO_CLASS]) if num_classes else None))
    assert output.shape == (3, 2 if learn_variance else 1, 8, 12)
    output.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_first_output_is_zero_and_images_of_a_batch_do_not_mix() -> None:
    network = small(num_classes=3).eval()
    x, c_noise, label = torch.randn(3, 1, 8, 8), torch.randn(3), Condition(torch.tensor([0, 2, NO_CLASS]))
    assert network(x, c_noise, label).abs().max() == 0
    awake(network)
    alone = torch.cat([network(x[i : i + 1], c_noise[i : i + 1], label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, c_noise, label), alone, rtol=1e-4, atol=1e-5)


def test_time_and_class_change_the_output_and_none_is_no_class() -> None:
    network = awake(small(num_classes=3)).eval()
    x, c_noise = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 0.3)
    outputs = network(x, c_noise, Condition(torch.tensor([0, 1, 2, NO_CLASS])))
    assert all((outputs[i] - outputs[j]).abs().max() > 1e-3 for i, j in itertools.combinations(range(4), 2))
    torch.testing.assert_close(network(x, c_noise, UNCONDITIONAL)[0], outputs[3])
    assert (network(x, c_noise + 0.2, UNCONDITIONAL) - outputs[3]).abs().max() > 1e-3


def test_half_precision_stays_near() -> None:
    """Under autocast, and with rounded weights; frequencies are never rounded."""
    network, x = awake(small(num_classes=3)).eval(), torch.randn(8, 1, 8, 8)
    c_noise, condition = torch.randn(8), Condition(torch.arange(8) % 3)
    with torch.no_grad():
        exact = network(x, c_noise, condition)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(x, c_noise, condition).float()
        frequencies = network.features.frequencies.clone()
        true = network.bfloat16()(x, c_noise, condition)
        assert true.dtype == torch.bfloat16, "all activations, and not the weights alone"
    assert magnitude(mixed - exact) < 0.03 * magnitude(exact) and magnitude(true - exact) < 0.03 * magnitude(exact)
    assert torch.equal(network.features.frequencies, frequencies)


def test_dropout_is_only_in_training() -> None:
    network = awake(small(dropout=0.5))
    assert {block.dropout for block in network.modules() if isinstance(block, MPBlock)} == {0.5}
    x, c_noise = torch.randn(2, 1, 8, 8), torch.randn(2)
    assert not torch.equal(*(network(x, c_noise, UNCONDITIONAL) for _ in range(2)))
    network.eval()
    assert torch.equal(*(network(x, c_noise, UNCONDITIONAL) for _ in range(2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolution": [8, 9]}, ["[8, 9] is not; 8 and [8, 10] are", "data.resolution"]),
        ({"channels": 0}, ["channels=0", "levels of [0, 0] channels", "at least 1"]),
        ({"channel_multipliers": []}, ["channel_multipliers=[]"]),
        ({"head_channels": -4}, ["model.head_channels", "at least 1", "-4"]),
        ({"image_channels": 0}, ["at least 1", "0"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
        ({"head_channels": 3}, ["head_channels=3"]),
        ({"label_balance": 1.5}, ["1.5", "[0, 1]"]),
        ({"dropout": 1.0}, ["dropout=1.0"]),
        ({"bandwidth": 0.0}, ["bandwidth=0.0"]),
        ({"clip": -1.0}, ["clip=-1.0"]),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        small(**options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("option", ["label_balance", "concat_balance", "residual_balance", "attention_balance"])
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_what_just_fits_is_built(option: str, balance: float) -> None:
    with torch.device("meta"):
        assert small(num_classes=1, dropout=0.0, **{option: balance}).num_classes == 1


def test_all_sizes_differ_in_width_and_dropout_alone() -> None:
    for path in sorted((CONFIG_FOLDER / "model").glob("edm2_*.yaml")):
        if path.stem != "edm2_s":
            assert set(OmegaConf.load(path)) <= {"defaults", "channels", "dropout"}
