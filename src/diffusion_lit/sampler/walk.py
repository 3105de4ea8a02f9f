"""One batch on its way from noise to data."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser, Prediction
from diffusion_lit.schedule import Schedule

Noise = Callable[[], Tensor]
"""Gives standard Gaussian noise [B, C, H, W], new at each call."""


def no_noise() -> Tensor:
    raise ValueError("this sampler draws noise in its steps: give its walk a source of noise")


@dataclass
class Walk:
    """What is the same for all steps of a batch."""

    denoiser: BaseDenoiser
    condition: Condition = UNCONDITIONAL
    noise: Noise = no_noise
    clip: float | None = None
    """The limit that each estimate of x_0 is held to, or None."""
    percentile: float | None = None
    """Share of dynamic thresholding, see `Prediction.clip`."""
    history: deque[Prediction] = field(default_factory=lambda: deque(maxlen=0))
    """The last predictions that a multistep solver remembers, oldest first."""

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """What the model makes of `x_t`, with x_0 clipped if asked for."""
        p = self.denoiser(x_t, t, self.condition)
        return p if self.clip is None else p.clip(self.clip, self.percentile)

    def remember(self, p: Prediction) -> None:
        """Add a step to the history, unless log SNR is infinite at its time: nothing can be extrapolated from there."""
        if p.log_snr.isfinite().all():
            self.history.append(p)
