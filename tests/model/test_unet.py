"""The U-Net against DDPM's published size, and its options against what they claim."""

import itertools

import pytest
import torch

from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.model import UNet
from diffusion_lit.model.block import Attention, ResBlock, TimeEmbedding


def small(**options: object) -> UNet:
    settings = {"resolution": 8, "image_channels": 1, "channels": 16, "channel_multipliers": (1, 2), "num_groups": 4}
    return UNet(**{**settings, **options})  # type: ignore[arg-type]


def randomise(network: torch.nn.Module) -> None:
    """Undo the zero initialisation, behind which every path is the same."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_base_is_ddpm_s_cifar_network() -> None:
    assert abs(count(UNet(32, 3, dropout=0.1)) - 35.7e6) < 0.1e6  # Ho et al. 2020, appendix B


def test_attention_stands_at_the_named_resolutions() -> None:
    network = UNet(32, 3, channels=32, attention_resolutions=(16,), num_groups=8)
    where = [name.split(".")[0] for name, layer in network.named_modules() if isinstance(layer, Attention)]
    assert where.count("down") == 2 and where.count("middle") == 1 and where.count("up") == 3


@pytest.mark.parametrize(
    "conditioning, resampling, head_channels, num_classes",
    itertools.product(["additive", "scale_shift"], ["conv", "residual"], [None, 8], [None, 10]),
)
def test_every_combination_learns_from_every_parameter(
    conditioning: str, resampling: str, head_channels: int | None, num_classes: int | None
) -> None:
    network = small(
        attention_resolutions=(8, 4),
        time_conditioning=conditioning,
        resampling=resampling,
        head_channels=head_channels,
        num_classes=num_classes,
    )
    randomise(network)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 10.0, 999.0])
    output = network(x, t, Condition(torch.tensor([0, 9, NO_CLASS]) if num_classes else None))
    assert output.shape == x.shape
    output.square().mean().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unused == []


def test_the_first_output_is_zero() -> None:
    assert small()(torch.randn(2, 1, 8, 8), torch.tensor([3.0, 7.0]), UNCONDITIONAL).abs().max() == 0


def test_images_of_a_batch_do_not_mix() -> None:
    network = small(num_classes=3, attention_resolutions=(8,)).eval()
    randomise(network)
    x, t, label = torch.randn(4, 1, 8, 8), torch.tensor([1.0, 5.0, 50.0, 999.0]), Condition(torch.tensor([0, 1, 2, 3]))
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(x, t, label), alone, rtol=1e-4, atol=1e-5)


def test_time_and_class_change_the_output_and_none_is_the_null_label() -> None:
    network = small(num_classes=3).eval()
    randomise(network)
    x, t = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 7.0)
    outputs = network(x, t, Condition(torch.arange(4)))
    assert all((outputs[i] - outputs[j]).abs().max() > 1e-3 for i, j in itertools.combinations(range(4), 2))
    torch.testing.assert_close(network(x, t, UNCONDITIONAL)[0], outputs[3])
    torch.testing.assert_close(network(x, t, Condition(torch.arange(4)).null())[0], outputs[3])
    assert (network(x, t + 1, UNCONDITIONAL) - network(x, t, UNCONDITIONAL)).abs().max() > 1e-4


def test_attention_equals_its_formula() -> None:
    attention = Attention(channels=8, num_groups=2, head_channels=4)
    randomise(attention)
    x = torch.randn(2, 8, 3, 3)
    q, k, v = attention.qkv(attention.norm(x)).reshape(2, 3, 2, 4, 9).unbind(1)  # [B, heads, C, pixels]
    weights = torch.softmax(torch.einsum("bhci,bhcj->bhij", q, k) / 4**0.5, dim=-1)
    expected = x + attention.out(torch.einsum("bhij,bhcj->bhci", weights, v).reshape(2, 8, 3, 3))
    torch.testing.assert_close(attention(x), expected)


def test_time_embedding_is_sines_and_cosines() -> None:
    embedding = TimeEmbedding(4, 8)
    embedding.layers = torch.nn.Sequential(torch.nn.Identity())
    embedding.layers.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    expected = torch.tensor([[5.0, 5 / 100]])
    torch.testing.assert_close(embedding(torch.tensor([5.0])), torch.cat([expected.sin(), expected.cos()], 1))


def test_scale_shift_equals_its_formula() -> None:
    block = ResBlock(4, 4, emb_channels=6, num_groups=2, scale_shift=True)
    randomise(block)
    x, emb = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    scale, shift = block.emb(torch.nn.functional.silu(emb)).reshape(2, 2, 4, 1, 1).unbind(1)
    h = block.conv_1(torch.nn.functional.silu(block.norm_1(x)))
    expected = x + block.conv_2(torch.nn.functional.silu(block.norm_2(h) * (1 + scale) + shift))
    torch.testing.assert_close(block(x, emb), expected)


def test_dropout_is_before_the_second_convolution_and_only_in_training() -> None:
    block = ResBlock(4, 4, emb_channels=6, num_groups=2, dropout=0.3)
    randomise(block)
    x, emb, silu = torch.randn(2, 4, 5, 5), torch.randn(2, 6), torch.nn.functional.silu
    h = silu(block.norm_2(block.conv_1(silu(block.norm_1(x))) + block.emb(silu(emb))[:, :, None, None]))
    torch.manual_seed(0)
    dropped = torch.nn.functional.dropout(h, 0.3)
    torch.manual_seed(0)
    torch.testing.assert_close(block(x, emb), x + block.conv_2(dropped))
    torch.testing.assert_close(block.eval()(x, emb), x + block.conv_2(h))


@pytest.mark.parametrize("resampling", ["conv", "residual"])
def test_all_residual_blocks_have_the_network_s_dropout(resampling: str) -> None:
    blocks = [m for m in small(dropout=0.3, resampling=resampling).modules() if isinstance(m, ResBlock)]
    assert len(blocks) > 5 and {block.dropout.p for block in blocks} == {0.3}


@pytest.mark.parametrize(
    "options, words",
    [
        ({"resolution": 9}, ["9", "8 and 10", "data.resolution"]),
        ({"resolution": 28, "channel_multipliers": (1, 2, 2, 2)}, ["28", "24 and 32"]),
        ({"resolution": 2, "channel_multipliers": (1, 1, 1)}, ["2", "4 and 8"]),
        ({"image_channels": 0}, ["at least 1", "0"]),
        ({"time_conditioning": "film"}, ["additive or scale_shift", "film"]),
        ({"resampling": "pool"}, ["conv_same or residual", "pool"]),
        ({"num_groups": 5}, ["channels=16", "num_groups=5"]),
        ({"head_channels": 3, "attention_resolutions": (8,)}, ["head_channels=3"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        small(**options)
    assert all(word in str(error.value) for word in words)
