"""What a printed command that draws from a model must say, since the defaults of `sample` do not fit it."""

from collections.abc import Mapping
from typing import Any

__all__ = ["STEPS", "sample_settings", "settings_of_record"]

STEPS = 50
"""As many as conf/sampler/ddim.yaml takes."""


def sample_settings(chain: int | None, clip: float | None) -> dict[str, object]:
    """The settings.

    Args:
        chain: the number of steps of the model's schedule; None if that is continuous.
        clip: the largest |x_0| when its images are drawn, or None.
    """
    steps: dict[str, object] = {} if chain is None or chain >= STEPS else {"sampler.num_steps": chain}
    return steps if clip == 1 else {**steps, "sampler.clip": "null" if clip is None else f"{clip:g}"}


def settings_of_record(config: Mapping[str, Any]) -> dict[str, object]:
    """The settings, by what a run has recorded of itself, which somebody else may have written."""
    schedule, space, sampler, callbacks = (
        part if isinstance(part := config.get(name), Mapping) else {}
        for name in ("schedule", "space", "sampler", "callback")
    )
    parts = [part for part in callbacks.values() if isinstance(part, Mapping)]
    averages = [str(part.get("name", "ema")) for part in parts if str(part.get("_target_")).endswith("EMA")]
    weights = "ema" if "ema" in averages else [*averages, "raw"][0]
    chain, clip = schedule.get("num_timesteps"), sampler.get("clip", 1.0)
    limit = float(clip) if type(clip) in (int, float) and "autoencoder" not in space else None
    settings = sample_settings(chain if type(chain) is int and chain > 0 else None, limit)
    return settings if weights == "ema" else {"weights": weights, **settings}
