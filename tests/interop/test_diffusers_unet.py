"""diffusers' UNet2DModel as our U-Net: the same settings, the same weights, the same outputs."""

import inspect
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.interop import diffusers_unet as door
from diffusion_lit.model import UNet
from diffusion_lit.schedule import LinearSchedule
from tests.interop.weights import filled

DDPM_CIFAR10 = {  # config.json of google/ddpm-cifar10-32
    **{"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None},
    **{"block_out_channels": [128, 256, 256, 256], "center_input_sample": False, "downsample_padding": 0},
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    **{"flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1},
    **{"norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32},
    **{"time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]},
}
SMALL = {"sample_size": 8, "block_out_channels": [16, 32], "norm_num_groups": 8, "layers_per_block": 1}
PLAIN = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
RESIDUAL = {
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "UNetResDownBlock2D"],
    "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    **{"downsample_type": "resnet", "upsample_type": "resnet"},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ddpm": {**DDPM_CIFAR10, "block_out_channels": [8, 16, 16, 16], "norm_num_groups": 4, "sample_size": 16},
    "defaults": {**SMALL, **PLAIN},
    "classes": {**SMALL, **PLAIN, "num_class_embeds": 5, "attention_head_dim": None, "out_channels": 6},
    "rectangular": {**SMALL, **PLAIN, "sample_size": [8, 12], "block_out_channels": [16, 24], "in_channels": 1}
    | {"out_channels": 1, "attention_head_dim": 4},
    "residual": {**SMALL, **RESIDUAL, "block_out_channels": [16, 16, 32]}
    | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8, "attention_head_dim": 16, "dropout": 0.2},
    "attention_everywhere": {**SMALL, "layers_per_block": 2}
    | {"down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2, "act_fn": "swish"},
    "uneven": {**SMALL, **PLAIN, "block_out_channels": [14, 58], "norm_num_groups": 2, "attention_head_dim": None},
    "one_level": {**SMALL, "block_out_channels": [16], "down_block_types": ["DownBlock2D"]}
    | {"up_block_types": ["UpBlock2D"]},
}


def theirs_of(config: dict[str, Any]) -> UNet2DModel:
    network = UNet2DModel(**{key: value for key, value in config.items() if not key.startswith("_")}).eval()
    network.load_state_dict(filled(network.state_dict()))
    return network


def ours_of(settings: dict[str, Any]) -> UNet:
    return UNet(**{key: value for key, value in settings.items() if key != "_target_"}).eval()


@cache
def pair(name: str) -> tuple[UNet2DModel, UNet, dict[str, Any]]:
    theirs, settings = theirs_of(CONFIGS[name]), door.network_settings(CONFIGS[name])
    ours = ours_of(settings)
    ours.load_state_dict(door.weights_from(theirs.state_dict(), settings))
    return theirs, ours, settings


@torch.no_grad()
def outputs(theirs: UNet2DModel, ours: UNet, batch: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, *ours.image_shape, generator=torch.Generator().manual_seed(1))
    steps = torch.tensor([0, 417, 999])[:batch]
    c_noise = LinearSchedule(1000).c_noise((steps + 1).double() / 1000)
    label = None if ours.num_classes is None else torch.arange(batch) + ours.num_classes - batch
    return theirs(x, steps, label).sample, ours(x, c_noise.float(), Condition(label))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_outputs_are_theirs(name: str) -> None:
    expected, found = outputs(*pair(name)[:2])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_outputs_of_ddpm_s_own_network_are_theirs() -> None:
    theirs, settings = theirs_of(DDPM_CIFAR10), door.network_settings(DDPM_CIFAR10)
    ours = ours_of(settings)
    ours.load_state_dict(door.weights_from(theirs.state_dict(), settings))
    expected, found = outputs(theirs, ours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_and_settings_return_to_the_bit(name: str) -> None:
    theirs, ours, settings = pair(name)
    back = door.weights_to(ours.state_dict(), settings)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], weight) for key, weight in theirs.state_dict().items())
    unsaid = {key: value for key, value in settings.items() if key != "qkv_by_head"}  # as settings of before it
    assert all(torch.equal(back[key], weight) for key, weight in door.weights_to(ours.state_dict(), unsaid).items())
    config = door.config_from(settings)
    assert door.network_settings(config) == settings
    assert UNet2DModel(**{k: v for k, v in config.items() if k[0] != "_"}).state_dict().keys() == back.keys()


def test_former_names_of_attention_are_taken() -> None:
    theirs, ours, settings = pair("ddpm")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = theirs.state_dict()
    for new, old in former.items():
        state = {name.replace(f".{new}.", f".{old}."): weight for name, weight in state.items()}
    assert "mid_block.attentions.0.proj_attn.weight" in state and "up_blocks.2.attentions.1.query.bias" in state
    taken = door.weights_from(state, settings)
    assert all(torch.equal(taken[name], weight) for name, weight in ours.state_dict().items())


@pytest.mark.parametrize("heads", [{"head_channels": 8}, {"num_heads": 4}, {"num_heads": 1}])
def test_heads_and_the_order_of_their_rows_are_exported(heads: dict[str, int]) -> None:
    """A network as guided-diffusion's, whose projection of attention is sorted by heads."""
    config = {**CONFIGS["residual"], "block_out_channels": [16, 16, 16]}
    settings = {**door.network_settings(config), "num_heads": None, "head_channels": None, **heads}
    settings = {**settings, "qkv_by_head": True, "num_classes": 7, "null_class": True}
    ours = ours_of(settings)
    ours.load_state_dict(filled(ours.state_dict()))
    config, weights = door.config_from(settings), door.weights_to(ours.state_dict(), settings)
    theirs = UNet2DModel(**{key: value for key, value in config.items() if key[0] != "_"}).eval()
    theirs.load_state_dict(weights)
    expected, found = outputs(theirs, ours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    back = door.weights_from(weights, settings)
    assert all(torch.equal(back[name], weight) for name, weight in ours.state_dict().items())
    assert config["num_class_embeds"] == 8, "the last is that of images without a class"
    returned = door.network_settings(config, null_class=True)
    assert (returned["num_classes"], returned["null_class"]) == (7, True)
    storages = {weight.untyped_storage().data_ptr() for weight in weights.values()}
    assert len(storages) == len(weights), "no two share memory, which safetensors refuses"


def test_heads_of_several_sizes_are_not_exported() -> None:
    settings = door.network_settings({**CONFIGS["attention_everywhere"], "attention_head_dim": None})
    with pytest.raises(ValueError, match="num_heads=4 makes heads of 4 and 8 channels"):
        door.config_from({**settings, "num_heads": 4})


@pytest.mark.parametrize(
    "option, value, word",
    [
        ("_class_name", "UNet2DConditionModel", "UNet2DModel"),
        ("sample_size", None, "config.json"),
        ("center_input_sample", True, "False"),
        ("time_embedding_type", "fourier", "positional"),
        ("time_embedding_dim", 32, "64"),
        ("mid_block_type", None, "UNetMidBlock2D"),
        ("mid_block_scale_factor", 2**0.5, "1"),
        ("add_attention", False, "True"),
        ("act_fn", "gelu", "silu"),
        ("class_embed_type", "timestep", "None"),
        ("resnet_time_scale_shift", "spatial", "scale_shift"),
        ("attn_norm_num_groups", 4, "norm_num_groups=8"),
        ("downsample_padding", 2, "0"),
        ("downsample_type", "fir", "resnet"),
        ("upsample_type", "resnet", "by one kind"),
        ("out_channels", 4, "in_channels=3"),
        ("down_block_types", ["DownBlock2D", "AttnSkipDownBlock2D"], "AttnSkipDownBlock2D"),
        ("up_block_types", ["UpBlock2D", "AttnUpBlock2D"], "same sizes"),
        ("up_block_types", ["UpBlock2D"], "as many"),
        ("cross_attention_dim", 8, "no such option"),
    ],
)
def test_what_our_network_lacks_is_named(option: str, value: object, word: str) -> None:
    with pytest.raises(ValueError) as error:
        door.network_settings({**CONFIGS["defaults"], option: value})
    assert option in str(error.value) and word in str(error.value)


@pytest.mark.parametrize("option", ["downsample_type", "upsample_type"])
def test_levels_in_the_middle_that_resample_otherwise_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}.* by one kind"):
        door.network_settings({**CONFIGS["residual"], option: "conv"})


def test_attention_without_a_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="attn_norm_num_groups=None"):
        door.network_settings({**CONFIGS["residual"], "attn_norm_num_groups": None})


@pytest.mark.parametrize(
    "option, value",
    [
        ("_target_", "diffusion_lit.model.dit.DiT"),
        ("augmentation_dim", 9),
        ("time_scale", 0.25),
        ("fold", 2),
        ("time_channels", 32),
        ("channel_multipliers", [2, 2]),
    ],
)
def test_what_diffusers_lacks_is_named(option: str, value: object) -> None:
    with pytest.raises(ValueError) as error:
        door.config_from({**door.network_settings(CONFIGS["defaults"]), option: value})
    assert str(value) in str(error.value) and "UNet2DModel" in str(error.value)


def test_weights_that_are_missing_or_have_no_place_are_named() -> None:
    theirs, ours, settings = pair("defaults")
    state = theirs.state_dict()
    for name in ("conv_in.bias", "mid_block.attentions.0.to_k.weight"):
        with pytest.raises(ValueError, match=f"{name} is missing"):
            door.weights_from({key: weight for key, weight in state.items() if key != name}, settings)
    with pytest.raises(ValueError, match=r"add_embedding\.weight has no place"):
        door.weights_from({**state, "add_embedding.weight": torch.zeros(1)}, settings)
    with pytest.raises(ValueError, match=r"first\.weight is missing"):
        door.weights_to({key: weight for key, weight in ours.state_dict().items() if key != "first.weight"}, settings)
    with pytest.raises(ValueError, match="no layer for mine"):
        door.weights_to({**ours.state_dict(), "mine": torch.zeros(1)}, settings)


def test_defaults_are_those_of_both_sides() -> None:
    theirs, ours = (inspect.signature(cls.__init__).parameters for cls in (UNet2DModel, UNet))
    assert {name: p.default for name, p in theirs.items() if name != "self"} == dict(door.DEFAULTS)
    assert {name: ours[name].default for name in door.UNWRITTEN} == dict(door.UNWRITTEN)
