"""diffusers' UNet2DModel as our U-Net: the same settings, the same weights, the same outputs."""

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
    config = door.config_from(settings)
    assert door.network_settings(config) == settings
    assert UNet2DModel(**{k: v for k, v in config.items() if k[0] != "_"}).state_dict().keys() == back.keys()
