"""The networks of improved-diffusion and guided-diffusion as our U-Net: numbers that their own code gave."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from diffusion_lit.condition import Condition
from diffusion_lit.interop.openai_unet import flags, network_settings, process_settings, weights_from
from diffusion_lit.parameterization import EpsParameterization, X0Parameterization
from diffusion_lit.schedule import DiscreteSchedule
from tests.interop.weights import filled

REFERENCE = Path(__file__).parents[1] / "reference"
NETWORKS: dict[str, Any] = json.loads((REFERENCE / "openai_unet.json").read_text())["networks"]
ADM_64 = (  # as the README of guided-diffusion prints them
    'MODEL_FLAGS="--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 '
    "--image_size 64 --learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels 64 "
    "--num_res_blocks 3 --resblock_updown True --use_new_attention_order True --use_fp16 True "
    '--use_scale_shift_norm True"'
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "adm_512" else ()) for n in NETWORKS])
@torch.no_grad()
def test_the_outputs_are_theirs(name: str) -> None:
    found = NETWORKS[name]
    config = flags(found["flags"])
    settings = network_settings(config)
    network = instantiate(settings).eval()
    state = filled({weight: torch.empty(shape, device="meta") for weight, shape in found["weights"].items()})
    network.load_state_dict(weights_from(state, settings))
    size, steps = found["size"], torch.tensor(found["t"])
    x = torch.sin(torch.arange(2 * 3 * size * size, dtype=torch.float32)).reshape(2, 3, size, size)
    label = None if found["label"] is None else torch.tensor(found["label"])
    schedule: DiscreteSchedule = instantiate(process_settings(config)["schedule"])
    c_noise = schedule.c_noise((steps + 1).double() / schedule.num_timesteps).float()
    output = network(x, c_noise, Condition(label))
    assert list(output.shape) == found["output_shape"]
    torch.testing.assert_close(output.flatten()[:: found["step"]], torch.tensor(found["output"]), rtol=1e-5, atol=2e-5)


def test_the_flags_of_a_readme_are_the_network_that_conf_has() -> None:
    config = flags(ADM_64)
    assert config["attention_resolutions"] == "32,16,8" and config["use_scale_shift_norm"] is True
    assert config["num_channels"] == 192 and config["dropout"] == 0.1 and config["rescale_timesteps"] is False
    assert flags(ADM_64.replace("MODEL_FLAGS=", "").strip('"')) == flags("--image_size=64 " + ADM_64) == config


def test_flags_that_are_not_given_are_those_of_the_scripts() -> None:
    """As guided-diffusion's `model_and_diffusion_defaults` has them."""
    expected = {
        **{"resolution": 64, "channels": 128, "channel_multipliers": [1, 2, 3, 4], "num_res_blocks": 2, "dropout": 0.0},
        **{"attention_resolutions": [16, 8], "num_heads": 4, "head_channels": None, "qkv_by_head": True},
        **{"time_conditioning": "scale_shift", "time_scale": 1.0, "resampling": "conv", "num_classes": None},
        "learn_variance": False,
    }
    settings, process = network_settings(flags("")), process_settings(flags(""))
    assert {name: settings[name] for name in expected} == expected
    assert settings["num_groups"] == 32 and settings["norm_eps"] == torch.nn.GroupNorm(32, 32).eps
    assert process["schedule"]["_target_"].endswith(".LinearSchedule") and process["schedule"]["num_timesteps"] == 1000
    assert process["parameterization"]["_target_"].endswith(".EpsParameterization")
    assert process["sampler"]["variance"] == "large"


def test_widths_by_size_of_image_are_theirs() -> None:
    """As `create_model` of guided-diffusion has them, and of 32 pixels, improved-diffusion's."""
    for size, widths in {
        32: (64, 128, 128, 128),
        64: (64, 128, 192, 256),
        128: (64, 64, 128, 192, 256),
        256: (64, 64, 128, 128, 256, 256),
        512: (32, 64, 64, 128, 128, 256, 256),
    }.items():
        settings = network_settings(flags(f"--image_size {size} --num_channels 64"))
        assert tuple(settings["channels"] * m for m in settings["channel_multipliers"]) == widths
        assert settings["channels"] == widths[0] and settings["time_channels"] == (64 if size == 512 else None)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_are_theirs(name: str) -> None:
    theirs = json.loads((REFERENCE / "improved_diffusion.json").read_text())["schedule"][name]["betas"]
    process = process_settings(flags(f"--diffusion_steps 40 --noise_schedule {name} --rescale_timesteps False"))
    torch.testing.assert_close(
        instantiate(process["schedule"]).betas, torch.tensor(theirs, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    "text, mean, variance",
    [
        ("--learn_sigma True", EpsParameterization, "learned"),
        ("--sigma_small True --predict_xstart yes", X0Parameterization, "small"),
        ("--predict_xstart 0", EpsParameterization, "large"),
    ],
)
def test_what_is_predicted_and_how_it_is_sampled(text: str, mean: type, variance: str) -> None:
    process = process_settings(flags(text))
    assert type(instantiate(process["parameterization"])) is mean
    sampler = instantiate(process["sampler"])
    assert sampler.variance == variance and sampler.num_steps is None


@pytest.mark.parametrize(
    "text, scale",
    [
        ("--image_size 32 --diffusion_steps 4000", 0.25),  # a size that improved-diffusion alone has
        ("--sigma_small True --diffusion_steps 500", 2.0),
        ("--diffusion_steps 4000 --rescale_timesteps False", 1.0),
        ("--diffusion_steps 4000 --use_fp16 False", 1.0),  # a flag that guided-diffusion alone has
        ("--diffusion_steps 1000", 1.0),
    ],
)
def test_the_scale_of_times_is_that_of_the_project(text: str, scale: float) -> None:
    assert network_settings(flags(text))["time_scale"] == scale


@pytest.mark.parametrize(
    "text, words",
    [
        ("--diffusion_steps 4000", ["--rescale_timesteps True", "improved-diffusion", "4000"]),
        ("--lr 1e-4", ["--lr", "num_channels"]),
        ("num_channels 64", ["num_channels"]),
        ("--num_channels", ["--num_channels", "no value"]),
        ("--num_channels many", ["--num_channels", "many"]),
        ("--class_cond maybe", ["--class_cond", "maybe"]),
        ("--attention_resolutions 16;8", ["--attention_resolutions", "16,8"]),
        ("--large_size 256", ["--large_size"]),
    ],
)
def test_flags_that_cannot_be_read_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        flags(text.replace(";", "\\;"))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "text, words",
    [
        ("--num_heads_upsample 2", ["--num_heads_upsample 2", "--num_heads 4"]),
        ("--image_size 48", ["--image_size 48", "--channel_mult"]),
    ],
)
def test_networks_that_cannot_be_expressed_are_refused(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        network_settings(flags(text))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "text, word", [("--timestep_respacing 250", "sampler.num_steps"), ("--noise_schedule sigmoid", "linear or cosine")]
)
def test_processes_that_cannot_be_expressed_are_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        process_settings(flags(text))


def test_weights_of_another_network_are_refused() -> None:
    settings = network_settings(flags("--image_size 64"))
    for name in ("out.3.weight", "input_blocks.1.0.mid_layers.0.bias", "conv_in.weight"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            weights_from({name: torch.zeros(1)}, settings)
    with pytest.raises(ValueError, match="cosine_first"):
        weights_from({}, {**settings, "cosine_first": False})
