"""What a printed command that draws from a model must say, since the defaults of `sample` do not fit it."""

from collections.abc import Mapping
from typing import Any

__all__ = ["STEPS", "sample_settings", "settings_of_record"]

STEPS = 50
"""As many as conf/sampler/ddim.yaml takes."""


def sample_settings(chain: int | None, bounded: bool) -> dict[str, object]:
    """The settings.

    Args:
        chain: the number of steps of the model's schedule; None if that is continuous.
        bounded: whether it draws images in [-1, 1], and not latents.
    """
    steps: dict[str, object] = {} if chain is None or chain >= STEPS else {"sampler.num_steps": chain}
    return steps if bounded else {**steps, "sampler.clip": "null"}


def settings_of_record(config: Mapping[str, Any]) -> dict[str, object]:
    """The settings, by what a run has recorded of itself."""
    schedule, space = (part if isinstance(part := config.get(name), Mapping) else {} for name in ("schedule", "space"))
    chain = schedule.get("num_timesteps")
    return sample_settings(chain if type(chain) is int and chain > 0 else None, "autoencoder" not in space)
