"""Published networks by name: their sizes, and their settings against the doors' reading of what was published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from diffusion_lit.command_line.catalogue import member_settings
from diffusion_lit.interop import diffusers_unet, openai_unet

COUNTS = json.loads((Path(__file__).parents[1] / "reference" / "openai_unet.json").read_text())["parameters"]
IDDPM = "--num_channels 128 --num_res_blocks 3 --learn_sigma True --diffusion_steps 4000 --noise_schedule cosine"
ADM = "--attention_resolutions 32,16,8 --class_cond True --learn_sigma True --resblock_updown True"
ADM_256 = f"{ADM} --num_channels 256 --num_res_blocks 2 --num_head_channels 64"
FLAGS = {  # of the READMEs of improved-diffusion and guided-diffusion
    "iddpm_cifar10": f"{IDDPM} --image_size 32 --dropout 0.3",
    "iddpm_imagenet64": f"{IDDPM} --image_size 64 --rescale_timesteps True",
    "adm_imagenet64": f"{ADM} --image_size 64 --num_channels 192 --num_res_blocks 3 --num_head_channels 64 "
    "--dropout 0.1 --use_new_attention_order True",
    "adm_imagenet128": f"{ADM} --image_size 128 --num_channels 256 --num_res_blocks 2 --num_heads 4",
    "adm_imagenet256": f"{ADM_256} --image_size 256",
    "adm_imagenet512": f"{ADM_256} --image_size 512",
}
CIFAR10 = {  # google/ddpm-cifar10-32, where it is not as diffusers' default
    **{"sample_size": 32, "block_out_channels": [128, 256, 256, 256], "attention_head_dim": None, "norm_eps": 1e-6},
    **{"downsample_padding": 0, "freq_shift": 1, "flip_sin_to_cos": False},
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
CELEBA = {  # google/ddpm-celebahq-256
    **{"sample_size": 256, "block_out_channels": [128, 128, 256, 256, 512, 512]},
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}
PUBLISHED = (*FLAGS, "ddpm", "ddpm_256")


def named(name: str, published: dict[str, Any]) -> dict[str, Any]:
    """The settings of conf/model/NAME.yaml for the images and classes that were published."""
    settings = {key.removeprefix("model."): setting.value for key, setting in member_settings("model", name)}
    return settings | {key: published[key] for key, value in settings.items() if value == "auto"}


def count(settings: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in instantiate(settings).parameters())


@pytest.mark.parametrize("name", FLAGS)
def test_openai_s_networks_have_their_settings_and_size(name: str) -> None:
    published = openai_unet.network_settings(openai_unet.flags(FLAGS[name]))
    settings = named(name, published)
    assert settings == published
    assert count(settings) == COUNTS[name]


@pytest.mark.parametrize("name, millions, own", [("ddpm", 35.7, {}), ("ddpm_256", 114, CELEBA)])
def test_ddpm_s_networks_have_their_settings_and_size(name: str, millions: float, own: dict[str, Any]) -> None:
    """Sizes of Ho et al. 2020, appendix B."""
    published = diffusers_unet.network_settings({**CIFAR10, **own})
    settings = named(name, published)
    assert settings == {**published, "dropout": settings["dropout"]}  # which a config.json does not say
    assert count(settings) == pytest.approx(millions * 1e6, rel=0.005)
