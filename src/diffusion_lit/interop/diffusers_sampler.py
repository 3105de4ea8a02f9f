"""How a scheduler of diffusers draws images, as settings of a sampler of ours."""

from collections.abc import Mapping
from typing import Any

__all__ = ["sampler_overrides", "sampling_config"]

SPACINGS = {"trailing": "trailing", "leading": "leading", "linspace": "uniform"}
VARIANCES = {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned"}
DEFAULT_SPACING = {"DPMSolverMultistepScheduler": "linspace", "EulerDiscreteScheduler": "linspace"}
"""Where it is not diffusers' usual leading."""
CLIPPED = ("DDPMScheduler", "DDIMScheduler")
"""Schedulers that can clip x_0, and do unless their settings say otherwise."""
SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def sampler_overrides(config: Mapping[str, Any]) -> list[str]:
    """`sampler=NAME` and its settings, with which our images are that scheduler's.

    DDIM's are where its `step` is called with `use_clipped_model_output=True`, or nothing is clipped, and where the
    number of steps divides that of the chain.

    Raises:
        ValueError: if no sampler here draws so; the message names the option.
    """
    name = config.get("_class_name")
    chosen = {
        "DDPMScheduler": ["sampler=ddpm"],
        "DDIMScheduler": ["sampler=ddim"],
        "DPMSolverMultistepScheduler": ["sampler=dpmpp_2m"],
        "EulerDiscreteScheduler": ["sampler=euler", "sampler.clip=null"],
    }.get(str(name))
    if chosen is None:
        raise ValueError(f"{name} puts its steps where no sampler here does")
    expected = {"steps_offset": 0, "set_alpha_to_one": True, "solver_order": 2, "algorithm_type": "dpmsolver++"}
    expected |= {"solver_type": "midpoint", "final_sigmas_type": "zero", "interpolation_type": "linear"}
    for key, value in (expected | dict.fromkeys(SIGMAS[1:], False)).items():
        if config.get(key, value) != value:
            raise ValueError(f"{key} is {config[key]}")
    if config.get("thresholding") and config.get("sample_max_value", 1.0) != 1.0:
        raise ValueError(f"thresholding has a sample_max_value, {config['sample_max_value']}")
    chosen = list(chosen)
    if name == "DDPMScheduler":
        variance = config.get("variance_type", "fixed_small")
        if variance not in VARIANCES:
            raise ValueError(f"variance_type is {variance}")
        chosen.append(f"sampler.variance={VARIANCES[variance]}")
    if name != "EulerDiscreteScheduler":
        clips = config.get("thresholding") or config.get("clip_sample", name in CLIPPED)
        limit = 1.0 if config.get("thresholding") else config.get("clip_sample_range", 1.0)
        chosen.append(f"sampler.clip={float(limit):g}" if clips else "sampler.clip=null")
    spacing = config.get("timestep_spacing", DEFAULT_SPACING.get(str(name), "leading"))
    if spacing not in SPACINGS:
        raise ValueError(f"timestep_spacing is {spacing}")
    chosen.append("sampler.spacing=" + ("karras" if config.get("use_karras_sigmas") else SPACINGS[spacing]))
    return chosen


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
