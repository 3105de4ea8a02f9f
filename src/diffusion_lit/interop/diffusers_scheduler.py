"""diffusers' schedulers, as a schedule and a parameterization of ours, and back.

A scheduler's configuration says two things. What the model is: its betas and what its network predicts; whatever of
that has no equal here is refused. And how diffusers samples from it: that is a sampler's affair, see
`diffusion_lit.interop.diffusers_sampler`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_lit.trust.plain import printable, read_as

__all__ = ["config_from", "process_settings"]

SCHEDULE, PARAMETERIZATION = "diffusion_lit.schedule", "diffusion_lit.parameterization"
CHAINS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
)
FLOW = "FlowMatchEulerDiscreteScheduler"
PREDICTIONS = {"epsilon": "EpsParameterization", "sample": "X0Parameterization", "v_prediction": "VParameterization"}
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
"""What each chain has, with diffusers' defaults."""
COSINE = {"s": 0.008, "clip_min": 1e-9, "clip_max": 0.999}
"""Improved DDPM's own, which diffusers calls squaredcos_cap_v2; no beta is below 1e-9."""
OUR_COSINE = {"s": 0.008, "clip_min": 1e-4, "clip_max": 0.9999}
"""What our cosine schedule takes where its settings do not say."""
SAMPLING = {
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
    *("timestep_spacing", "steps_offset", "set_alpha_to_one", "variance_type", "solver_order", "algorithm_type"),
    *("solver_type", "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas"),
    *(
        "use_beta_sigmas",
        "use_lu_lambdas",
        "final_sigmas_type",
        "lambda_min_clipped",
        "interpolation_type",
        "sigma_min",
    ),
    *("sigma_max", "skip_prk_steps", "time_shift_type", "base_shift", "max_shift", "base_image_seq_len"),
    *("max_image_seq_len", "stochastic_sampling", "timestep_values", "tensor_format"),
}
"""Options that say how images are drawn, or, of versions long past, nothing."""
INERT = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "invert_sigmas": False,
    "shift_terminal": None,
    "timestep_type": "discrete",
}
"""Options that make another process of it, and the value with which they do not."""


def process_settings(config: Mapping[str, Any], origin: str) -> dict[str, dict[str, Any]]:
    """The `schedule` and the `parameterization` that a scheduler's configuration describes.

    Args:
        config: scheduler_config.json, plain values.
        origin: its file, for messages.

    Raises:
        ValueError: if it is of another class, or an option has no equal here; the message names it.
    """
    name = config.get("_class_name")
    if name not in (*CHAINS, FLOW):
        raise ValueError(
            f"{origin} describes a {printable(name)}; of these there is an equal: {', '.join(CHAINS)}, {FLOW}"
        )
    for key, value in INERT.items():
        if config.get(key, value) != value:
            raise refusal(origin, key, config[key], f"which has no equal here, {value} has")
    known = {*BETAS, *SAMPLING, *INERT, "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "prediction_type"}
    known |= {"predict_epsilon", "shift"}
    for key in config:
        if not key.startswith("_") and key not in known:
            why = (
                "which is not known here. If it does not change what the model was trained on, take it out of the file"
            )
            raise refusal(origin, key, config[key], why)
    if name == FLOW:
        if config.get("num_train_timesteps", 1000) != 1000:
            why = "and the network receives 1000 t here"
            raise refusal(origin, "num_train_timesteps", config["num_train_timesteps"], why)
        shift = read_as(float, config.get("shift", 1.0), f"{origin}: shift")
        schedule = {"_target_": f"{SCHEDULE}.FlowSchedule", "shift": shift}
        return {"schedule": schedule, "parameterization": {"_target_": f"{PARAMETERIZATION}.VelocityParameterization"}}
    if config.get("shift", 1.0) != 1.0:
        raise refusal(origin, "shift", config["shift"], "which a chain of betas does not have")
    prediction = str(config.get("prediction_type", "epsilon"))
    if config.get("predict_epsilon") is False:  # diffusers before 0.9
        prediction = "sample"
    if prediction not in PREDICTIONS:
        raise refusal(origin, "prediction_type", prediction, f"and here there are {', '.join(PREDICTIONS)}")
    parameterization = {"_target_": f"{PARAMETERIZATION}.{PREDICTIONS[prediction]}"}
    return {"schedule": chain(config, origin), "parameterization": parameterization}


def chain(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The discrete schedule with a configuration's betas."""
    rescaled = read_as(bool, config.get("rescale_betas_zero_snr", False), f"{origin}: rescale_betas_zero_snr")
    count, low, high = (
        read_as(type(default), config.get(key, default), f"{origin}: {key}") for key, default in BETAS.items()
    )
    ranged = {"num_timesteps": count, "beta_min": low, "beta_max": high}
    trained, kind = config.get("trained_betas"), config.get("beta_schedule", "linear")
    if trained is not None:
        betas = read_as(list[float], trained, f"{origin}: trained_betas")
        if len(betas) != count:
            raise refusal(origin, "num_train_timesteps", count, f"and trained_betas has {len(betas)} of them")
        found: dict[str, Any] = {"_target_": f"{SCHEDULE}.DiscreteSchedule", "betas": betas}
    elif kind == "linear":
        found = {"_target_": f"{SCHEDULE}.LinearSchedule", **ranged}
    elif kind == "scaled_linear":
        found = {"_target_": f"{SCHEDULE}.ScaledLinearSchedule", **ranged}
    elif kind == "squaredcos_cap_v2":
        found = {"_target_": f"{SCHEDULE}.CosineSchedule", "num_timesteps": count, **COSINE}
    elif kind == "sigmoid":
        found = {"_target_": f"{SCHEDULE}.DiscreteSchedule", "betas": sigmoid_betas(count, low, high)}
    else:
        why = "and here there are linear, scaled_linear, squaredcos_cap_v2, sigmoid and trained_betas"
        raise refusal(origin, "beta_schedule", kind, why)
    return {**found, "shift": 1.0, "zero_terminal_snr": rescaled}


def sigmoid_betas(count: int, low: float, high: float) -> list[float]:
    """diffusers' sigmoid curve, evenly from -6 to 6; `SigmoidSchedule`, Xu et al.'s, begins a step later."""
    places = [-6 + 12 * i / max(count - 1, 1) for i in range(count)]
    return [(high - low) / (1 + math.exp(-place)) + low for place in places]


def config_from(
    schedule: Mapping[str, Any], parameterization: Mapping[str, Any], betas: Sequence[float] | None
) -> dict[str, Any]:
    """The part of a scheduler's configuration that says what the model is; `process_settings` reads it back.

    Args:
        schedule, parameterization: settings.
        betas: of a discrete schedule, before its end is made noise; None of a continuous one.

    Raises:
        ValueError: if diffusers has no equal.
    """
    kind, output = (str(part["_target_"]).rpartition(".")[2] for part in (schedule, parameterization))
    if kind == "FlowSchedule" and output == "VelocityParameterization":
        return {"_class_name": FLOW, "num_train_timesteps": 1000, "shift": schedule.get("shift", 1.0)}
    prediction = next((name for name, target in PREDICTIONS.items() if target == output), None)
    if prediction is None:
        raise ValueError(
            f"format=diffusers cannot express parameterization={output}: diffusers has {', '.join(PREDICTIONS)}"
        )
    if betas is None:
        raise ValueError(
            f"format=diffusers cannot express schedule={kind}, which is continuous: its schedulers are chains of "
            "betas, or flow with parameterization=velocity. Use format=safetensors, onnx or torch_export"
        )
    config: dict[str, Any] = {"_class_name": "DDPMScheduler", "num_train_timesteps": len(betas)}
    ranged = {"beta_start": schedule.get("beta_min", 1e-4), "beta_end": schedule.get("beta_max", 0.02)}
    cosine = {key: schedule.get(key, default) for key, default in OUR_COSINE.items()}
    plain = schedule.get("shift", 1.0) == 1.0
    if plain and kind == "LinearSchedule":
        config |= {"beta_schedule": "linear", **ranged}
    elif plain and kind == "ScaledLinearSchedule":
        config |= {"beta_schedule": "scaled_linear", **ranged}
    elif plain and kind == "CosineSchedule" and cosine["s"] == COSINE["s"] and same_cosine(cosine, betas):
        config |= {"beta_schedule": "squaredcos_cap_v2"}
    else:
        config |= {"trained_betas": list(betas)}
    rescaled = bool(schedule.get("zero_terminal_snr", False))
    return config | {"prediction_type": prediction, "rescale_betas_zero_snr": rescaled}


def same_cosine(settings: Mapping[str, float], betas: Sequence[float]) -> bool:
    """Whether a cosine schedule that is clipped so has the betas of diffusers', which clips at 0.999 alone."""
    return settings["clip_max"] == COSINE["clip_max"] and min(betas) > settings["clip_min"]


def refusal(origin: str, key: str, value: object, why: str) -> ValueError:
    return ValueError(f"{origin}: {key} is {printable(value)}, {why}")
