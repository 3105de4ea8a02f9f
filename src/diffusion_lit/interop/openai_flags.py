"""The flags of the scripts of openai/improved-diffusion and openai/guided-diffusion, and the process that they name."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS", "flags", "process_settings"]

DEFAULTS: Mapping[str, Any] = {
    **{"image_size": 64, "num_channels": 128, "num_res_blocks": 2, "num_heads": 4, "num_heads_upsample": -1},
    **{"num_head_channels": -1, "attention_resolutions": "16,8", "channel_mult": "", "dropout": 0.0},
    **{"class_cond": False, "use_checkpoint": False, "use_scale_shift_norm": True, "resblock_updown": False},
    **{"use_fp16": False, "use_new_attention_order": False, "learn_sigma": False, "sigma_small": False},
    **{"diffusion_steps": 1000, "noise_schedule": "linear", "timestep_respacing": "", "use_kl": False},
    **{"predict_xstart": False, "rescale_timesteps": False, "rescale_learned_sigmas": False},
}
"""What `create_model_and_diffusion` takes in guided-diffusion, and `sigma_small`, which improved-diffusion has too.

The defaults of the two projects are one another's but for `rescale_timesteps` and `rescale_learned_sigmas`.
"""

GUIDED = ("num_head_channels", "channel_mult", "resblock_updown", "use_fp16", "use_new_attention_order")
"""Flags of guided-diffusion alone; improved-diffusion's are `sigma_small`, and 32 pixels without `channel_mult`."""

LISTS = {"attention_resolutions": "16,8", "channel_mult": "1,2,3,4"}
"""Flags that are several numbers, with an example."""

YES, NO = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def flags(text: str) -> dict[str, Any]:
    """The flags of their scripts, as their READMEs print them, with the scripts' defaults for the others.

    MODEL_FLAGS="--image_size 32 ..." and more such lines are taken as they are. Flags of a data set, of training or of
    sampling are not: they say nothing of a network.

    Raises:
        ValueError: if a flag is unknown or its value is not of its kind, or which project's defaults apply is not said
            and makes a difference.
    """
    words = [word for quoted in shlex.split(text) for word in shlex.split(quoted.partition("_FLAGS=")[2] or quoted)]
    given: dict[str, Any] = {}
    position = 0
    while position < len(words):
        name, equals, value = words[position].partition("=")
        key, position = name.removeprefix("--"), position + 1
        if not name.startswith("--") or key not in DEFAULTS:
            raise ValueError(
                f"{words[position - 1]!r} is not a flag of their network or process: {', '.join(DEFAULTS)}"
            )
        if not equals:
            if position == len(words):
                raise ValueError(f"{name} has no value")
            value, position = words[position], position + 1
        given[key] = read(key, value)
    found = {**DEFAULTS, **given}
    if "rescale_timesteps" in given or found["diffusion_steps"] == 1000 or given.keys() & set(GUIDED):
        return found
    if "sigma_small" not in given and found["image_size"] != 32:
        raise ValueError(
            f"with --diffusion_steps {found['diffusion_steps']} it matters which time the network receives: add "
            "--rescale_timesteps True if the model is of improved-diffusion, whose default it is, or "
            "--rescale_timesteps False if it is of guided-diffusion"
        )
    return {**found, "rescale_timesteps": True}


def read(key: str, text: str) -> Any:
    """A flag's value, of the kind of its default."""
    kind = type(DEFAULTS[key])
    if key in LISTS and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise ValueError(f"--{key} must be whole numbers with commas between, such as {LISTS[key]}, got {text!r}")
    if kind is bool:
        if text.lower() not in (*YES, *NO):
            raise ValueError(f"--{key} must be True or False, got {text}")
        return text.lower() in YES
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"--{key} must be a number of kind {kind.__name__}, got {text}") from error


def process_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `schedule`, `parameterization` and `sampler` for a model of either project.

    `use_kl` and `rescale_learned_sigmas` are of training, which is over.

    Args:
        config: what `flags` gives.

    Raises:
        ValueError: if the process is none that we have.
    """
    c = {**DEFAULTS, **config}
    steps, scale = c["diffusion_steps"], 1000 / c["diffusion_steps"]
    if c["timestep_respacing"]:
        raise ValueError(
            f"--timestep_respacing {c['timestep_respacing']} is of sampling: leave it out here, and sample with "
            "sampler.num_steps"
        )
    both = {"num_timesteps": steps, "shift": 1.0, "zero_terminal_snr": False}
    schedules = {
        "linear": {
            "_target_": "diffusion_lit.schedule.LinearSchedule",
            "beta_min": scale * 1e-4,
            "beta_max": scale * 0.02,
        },
        "cosine": {
            "_target_": "diffusion_lit.schedule.CosineSchedule",
            "s": 0.008,
            "clip_min": 1e-9,
            "clip_max": 0.999,
        },
    }
    if c["noise_schedule"] not in schedules:
        raise ValueError(
            f"--noise_schedule must be {' or '.join(schedules)}, as it is there; got {c['noise_schedule']}"
        )
    mean = "X0" if c["predict_xstart"] else "Eps"
    variance = "learned" if c["learn_sigma"] else "small" if c["sigma_small"] else "large"
    return {
        "schedule": {**schedules[c["noise_schedule"]], **both},
        "parameterization": {"_target_": f"diffusion_lit.parameterization.{mean}Parameterization"},
        "sampler": {
            "_target_": "diffusion_lit.sampler.DDPMSampler",
            "num_steps": None,
            "variance": variance,
            "clip": 1.0,
        }
        | {"percentile": None, "spacing": None},
    }
