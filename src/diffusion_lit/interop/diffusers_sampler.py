"""How a scheduler of diffusers draws images, as settings of a sampler of ours."""

import math
from collections.abc import Mapping
from typing import Any

from diffusion_lit.trust.plain import read_as

__all__ = ["limits_of", "sampler_overrides", "sampling_config"]

VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
SAMPLERS = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "EulerDiscreteScheduler": "euler",
}
DEFAULT_SPACING = {"DPMSolverMultistepScheduler": "linspace", "EulerDiscreteScheduler": "linspace"}
"""Where it is not diffusers' usual leading."""
SPACINGS = {"DPMSolverMultistepScheduler": ("trailing",)}
"""Those whose steps are where ours of that name are, if not both leading and trailing."""
CLIPPED = ("DDPMScheduler", "DDIMScheduler")
"""Schedulers that can clip x_0, and do unless their settings say otherwise."""
OF_SOLVERS = {"final_sigmas_type": "zero", "rescale_betas_zero_snr": False}
OF_SOLVERS |= dict.fromkeys(("use_exponential_sigmas", "use_beta_sigmas"), False)
EXPECTED: Mapping[str, Mapping[str, Any]] = {
    "DDPMScheduler": {"steps_offset": 0},
    "DDIMScheduler": {"steps_offset": 0, "set_alpha_to_one": True},
    "DPMSolverMultistepScheduler": {
        **OF_SOLVERS,
        **{"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "use_lu_lambdas": False},
        **{"use_karras_sigmas": False, "lambda_min_clipped": -math.inf},
    },
    "EulerDiscreteScheduler": {
        **OF_SOLVERS,
        **{"steps_offset": 0, "interpolation_type": "linear", "sigma_min": None, "sigma_max": None},
    },
}
"""Options of each, and the only values with which ours draws the same."""


def sampler_overrides(config: Mapping[str, Any]) -> list[str]:
    """`sampler=NAME` and its settings, with which our images are that scheduler's.

    They are where the number of steps divides that of the chain; DDIM's where its `step` is called with
    `use_clipped_model_output=True`, or nothing is clipped; and DDPM's of trailing steps with large or learned variance
    where all of the chain's steps are taken: from fewer, diffusers adds noise to the images themselves.

    Raises:
        ValueError: if no sampler here draws so; the message names the option.
    """
    name = str(config.get("_class_name"))
    if name not in SAMPLERS:
        raise ValueError(f"{name} puts its steps where no sampler here does")
    for key, value in EXPECTED[name].items():
        if config.get(key, value) != value:
            raise ValueError(f"{key} is {config[key]}")
    spacing = config.get("timestep_spacing", DEFAULT_SPACING.get(name, "leading"))
    karras = name == "EulerDiscreteScheduler" and config.get("use_karras_sigmas")
    if spacing not in (("linspace",) if karras else SPACINGS.get(name, ("leading", "trailing"))):
        raise ValueError(f"timestep_spacing is {spacing}{' and use_karras_sigmas is True' if karras else ''}")
    if name != "EulerDiscreteScheduler" and config.get("thresholding") and config.get("sample_max_value", 1.0) != 1.0:
        raise ValueError(f"thresholding has a sample_max_value, {config['sample_max_value']}")
    limits = limits_of(config)
    if name == "DDPMScheduler" and "variance" not in limits:
        raise ValueError(f"variance_type is {config['variance_type']}")
    clip = "null" if limits["clip"] is None else f"{limits['clip']:g}"
    chosen = {**limits, "clip": clip, "spacing": "karras" if karras else spacing}
    return [f"sampler={SAMPLERS[name]}", *(f"sampler.{key}={value}" for key, value in chosen.items())]


def limits_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `clip` of a scheduler and, of DDPM's, the `variance`, where a sampler of ours has it.

    Raises:
        ValueError: if it clips at what is not a number.
    """
    name = config.get("_class_name")
    can_threshold = name != "EulerDiscreteScheduler" and bool(config.get("thresholding"))
    clips = can_threshold or (name != "EulerDiscreteScheduler" and config.get("clip_sample", name in CLIPPED))
    limit = 1.0 if can_threshold else read_as(float, config.get("clip_sample_range", 1.0), "clip_sample_range")
    variance = VARIANCES.get(str(config.get("variance_type", "fixed_small")))
    own = {"variance": variance} if name == "DDPMScheduler" and variance else {}
    return {**own, "clip": limit if clips else None}


def sampling_config(variance: str, clip: float | None) -> dict[str, Any]:
    """How a DDPMScheduler must draw, so that DDIM and DDPM draw what ours do.

    Steps are `trailing`, our chains' own spacing.

    Args:
        variance: `small`, `large` or `learned`.
        clip: the largest |x_0|, or None.
    """
    theirs = next(name for name, ours in VARIANCES.items() if ours == variance)
    limits: dict[str, Any] = (
        {"clip_sample": False} if clip is None else {"clip_sample": True, "clip_sample_range": clip}
    )
    return {"variance_type": theirs, **limits, "timestep_spacing": "trailing", "steps_offset": 0, "thresholding": False}
