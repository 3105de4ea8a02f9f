"""The U-Net against DDPM's published size, and its options against what they claim."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.conditioning import check_hidden_classes, check_labelled
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.model import UNet
from diffusion_lit.model.block import Attention, ResBlock, downsample
from diffusion_lit.model.embedding import TimeEmbedding
from diffusion_lit.parameterization import EpsParameterization
from diffusion_lit.schedule import LinearSchedule


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
    list(itertools.product(["additive", "scale_shift"], ["conv", "residual"], [None, 8], [None, 10])),
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
        ({"num_groups": 0}, ["model.num_groups must be at least 1"]),
        ({"num_heads": -2}, ["model.num_heads must be at least 1"]),
        ({"time_conditioning": "film"}, ["additive or scale_shift", "film"]),
        ({"resampling": "pool"}, ["conv_same or residual", "pool"]),
        ({"num_groups": 5}, ["channels=16", "num_groups=5"]),
        ({"head_channels": 3, "attention_resolutions": (8,)}, ["head_channels=3"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
        ({"resolution": [8, 9]}, ["[8, 9] is not; 8 and [8, 10] are"]),
        ({"resolution": [8, 8, 8]}, ["[8, 8, 8]", "resolution=[48,64]"]),
        ({"head_channels": 4, "num_heads": 4}, ["head_channels=4", "num_heads=4", "null"]),
        ({"num_heads": 3}, ["num_heads=3"]),
        ({"channel_multipliers": (1, 1.1)}, ["channel_multipliers", "num_groups=4"]),
        ({"time_channels": 15}, ["time_channels=15", "even"]),
        ({"fold": 0}, ["model.fold", "at least 1", "0"]),
        ({"fold": 3}, ["folds the image by 3 and halves it 1 times", "multiple of 6", "6 and 12", "lower model.fold"]),
        ({"fold": 2, "resolution": [8, 10]}, ["[8, 10] is not; 8 and [8, 12] are"]),
        ({"frequency_shift": 8}, ["frequency_shift=8", "time_channels=16"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        small(**options)
    assert all(word in str(error.value) for word in words)


def test_heads_by_number_are_those_by_size_and_rows_may_be_sorted_by_heads() -> None:
    by_size, by_number, by_head = (
        Attention(8, 2, head_channels=4),
        Attention(8, 2, num_heads=2),
        Attention(8, 2, num_heads=2, qkv_by_head=True),
    )
    randomise(by_size)
    by_number.load_state_dict(by_size.state_dict())
    state = dict(by_size.state_dict())
    for name in ("qkv.weight", "qkv.bias"):  # [3, heads, C] -> [heads, 3, C]
        state[name] = state[name].unflatten(0, (3, 2, 4)).transpose(0, 1).flatten(0, 2)
    by_head.load_state_dict(state)
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(by_number(x), by_size(x))
    torch.testing.assert_close(by_head(x), by_size(x))


def test_times_may_be_scaled_their_frequencies_shifted_and_cosines_first() -> None:
    embedding = TimeEmbedding(4, 8, scale=0.5, frequency_shift=1, cosine_first=True)
    embedding.layers = torch.nn.Sequential(torch.nn.Identity())
    embedding.layers.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    expected = torch.tensor([[5.0, 5 / 10_000]])
    torch.testing.assert_close(embedding(torch.tensor([10.0])), torch.cat([expected.cos(), expected.sin()], 1))


def test_strided_convolutions_may_be_padded_on_the_right_and_below_only() -> None:
    layer, same = downsample(2), downsample(2, same=True)
    same.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 6, 6)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    expected = torch.nn.functional.conv2d(padded, layer.layer.weight, layer.layer.bias, stride=2)
    torch.testing.assert_close(same(x), expected)
    assert layer(x).shape == expected.shape and not torch.allclose(layer(x), expected)
    kinds = {how: small(resampling=how) for how in ("conv", "conv_same")}
    assert kinds["conv"].state_dict().keys() == kinds["conv_same"].state_dict().keys()
    assert [type(m).__name__ for m in kinds["conv_same"].modules()].count("ZeroPad2d") == 1


def test_all_norms_have_the_network_s_epsilon() -> None:
    norms = [m for m in small(norm_eps=1e-3, attention_resolutions=(8,)).modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) > 15 and {norm.eps for norm in norms} == {1e-3}


def test_a_rectangle_s_shorter_side_says_where_attention_stands() -> None:
    for resolution in ([8, 12], [12, 8]):
        network = small(resolution=resolution, attention_resolutions=(8,)).eval()
        where = [name.split(".")[0] for name, layer in network.named_modules() if isinstance(layer, Attention)]
        assert where.count("down") == 2 and where.count("middle") == 1 and where.count("up") == 3
        assert network.image_shape == (1, *resolution)
        assert network(torch.randn(2, *network.image_shape), torch.tensor([1.0, 2.0]), UNCONDITIONAL).shape[1:] == (
            1,
            *resolution,
        )


def test_levels_may_be_widened_by_fractions_and_times_be_finer_than_the_first() -> None:
    network = small(channel_multipliers=(1, 1.5), num_groups=8, time_channels=24)
    assert network.middle[0].conv_1.out_channels == 24
    assert len(network.time.frequencies) == 12 and network.time.layers[2].out_features == 96


def test_without_a_null_class_there_is_no_row_and_no_question_without_a_class() -> None:
    network = small(num_classes=3, null_class=False)
    assert network.label is not None and network.label.num_embeddings == 3 and not network.null_class
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert network(x, t, Condition(torch.tensor([0, 2]))).shape == x.shape
    with pytest.raises(ValueError, match="give labels"):
        network(x, t, UNCONDITIONAL)
    denoiser = Denoiser(network, LinearSchedule(), EpsParameterization())
    with pytest.raises(ValueError, match=r"guidance=2.*null_class=false"):
        GuidedDenoiser(denoiser, 2)
    assert not GuidedDenoiser(denoiser, 2, guide=denoiser).null_class
    with pytest.raises(ValueError, match=r"label_dropout=0\.1.*null_class=true"):
        check_hidden_classes(0.1, denoiser)
    check_hidden_classes(0, denoiser)
    check_hidden_classes(0.1, Denoiser(small(null_class=False), LinearSchedule(), EpsParameterization()))


def test_images_without_a_class_are_found_before_training_without_a_null_class() -> None:
    data = SimpleNamespace(splits={"train": range(5), "val": range(2)}, class_counts={"train": [2, 2], "val": None}.get)
    denoisers = [
        Denoiser(small(num_classes=2, null_class=known), LinearSchedule(), EpsParameterization())
        for known in (True, False)
    ]
    check_labelled(data, denoisers[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 of the 5 images of train"):
        check_labelled(data, denoisers[1])  # type: ignore[arg-type]


def folded(x: torch.Tensor, fold: int) -> torch.Tensor:
    """Squares of pixels as channels, by a literal reshape."""
    b, c, h, w = x.shape
    squares = x.reshape(b, c, h // fold, fold, w // fold, fold)
    return squares.permute(0, 1, 3, 5, 2, 4).reshape(b, c * fold**2, h // fold, w // fold)


@pytest.mark.parametrize("learn_variance", [False, True])
def test_a_folding_network_is_a_network_of_folded_images(learn_variance: bool) -> None:
    """With the same weights; the images wider than high, of two channels, and attention at a size after folding."""
    options = {"attention_resolutions": (4,), "learn_variance": learn_variance, "num_classes": 3}
    network = small(resolution=[8, 16], image_channels=2, fold=2, **options)
    inner = small(resolution=[4, 8], image_channels=8, **options)
    randomise(inner)
    network.load_state_dict(inner.state_dict())
    assert network.image_shape == (2, 8, 16)
    x, t, condition = torch.randn(3, 2, 8, 16), torch.tensor([1.0, 5.0, 9.0]), Condition(torch.tensor([0, 2, NO_CLASS]))
    expected = inner(folded(x, 2), t, condition)
    output = network(x, t, condition)
    assert output.shape == (3, 2 * (1 + learn_variance), 8, 16)
    torch.testing.assert_close(folded(output, 2), expected, rtol=0, atol=0)


def test_the_variance_of_a_folding_network_is_of_the_very_pixel() -> None:
    """The last bias alone speaks: channel c of the image, row i and column j of each square."""
    network = small(image_channels=2, fold=2, learn_variance=True)
    bias = torch.arange(16.0)
    network.last[2].bias.data.copy_(bias)
    output, variance = network(torch.zeros(1, 2, 8, 8), torch.zeros(1), UNCONDITIONAL)[0].chunk(2)
    square = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    for c in range(2):
        assert torch.equal(output[c], (square + 4 * c).repeat(4, 4))
        assert torch.equal(variance[c], (square + 4 * c + 8).repeat(4, 4))
