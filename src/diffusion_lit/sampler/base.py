"""The walk from noise back to data that all samplers share."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser, Prediction
from diffusion_lit.schedule import Schedule, check_spacing, per_image, spaced_times

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


@dataclass
class Sampler(ABC):
    """Turns noise into images by `step`, one call for each pair of successive times.

    Args:
        num_steps: how many steps; None takes all T of a discrete schedule.
        clip: the limit that each estimate of x_0 is held to; None, the default of the classes, leaves estimates as they
            are. The files of conf/sampler say 1, for images in [-1, 1].
        percentile: share of dynamic thresholding: an estimate of which this share is within the limit is cut off,
            another scaled down to it first. None always cuts off; Imagen's is 0.995.
        spacing: where the steps lie: uniform, trailing, leading, quadratic, karras or log_snr; None takes the
            schedule's own.

    Raises:
        ValueError: if an argument is out of range.
    """

    num_steps: int | None = 50
    _: KW_ONLY
    clip: float | None = None
    percentile: float | None = None
    spacing: str | None = None

    def __post_init__(self) -> None:
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"a sampler needs num_steps >= 1, got {self.num_steps}; null takes the schedule's T")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is the largest |x_0| and must be positive, got {self.clip}; null turns it off")
        if self.percentile is not None and (self.clip is None or not 0 < self.percentile < 1):
            raise ValueError(
                f"percentile must lie in (0, 1) and needs clip, got percentile={self.percentile}, clip={self.clip}; "
                "Imagen's are 0.995 and 1"
            )
        if self.spacing is not None:
            check_spacing(self.spacing)

    @property
    def stochastic(self) -> bool:
        """Whether `step` draws noise."""
        return False

    @property
    def num_previous(self) -> int:
        """How many earlier predictions `step` looks back on."""
        return 0

    @abstractmethod
    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """One step from x_t to x_s [B, C, H, W], at times s < t [B, 1, 1, 1], with what `walk` has of the rest."""

    def times(self, schedule: Schedule) -> Tensor:
        """The times that the walk visits, float64 [num_steps + 1]. A ValueError if the schedule cannot be walked so."""
        return spaced_times(schedule, self.num_steps, self.spacing)

    def check(self, denoiser: BaseDenoiser) -> None:
        """Raise a ValueError if the sampler cannot draw from `denoiser`."""
        self.times(denoiser.schedule)
        if self.clip is not None and not denoiser.space.bounded:
            raise ValueError(
                f"clip={self.clip} would cut off {denoiser.space.name}, which may lie anywhere: use sampler.clip=null"
            )

    def walk(self, denoiser: BaseDenoiser, condition: Condition = UNCONDITIONAL, noise: Noise = no_noise) -> Walk:
        """The beginning of a walk, with this sampler's clipping and an empty history."""
        return Walk(denoiser, condition, noise, self.clip, self.percentile, deque(maxlen=self.num_previous))

    @torch.no_grad()
    def __call__(
        self,
        denoiser: BaseDenoiser,
        noise: Noise,
        condition: Condition = UNCONDITIONAL,
        on_step: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Draw a batch of images, about [-1, 1], [B, C, H, W]. Raises what `check` raises.

        Args:
            denoiser: the model, in evaluation mode.
            noise: gives standard Gaussian noise [B, C, H, W]: the start at its first call, then a step's noise.
            condition: what else the model is given.
            on_step: called with s and x_s after each step.
        """
        self.check(denoiser)
        walk, start = self.walk(denoiser, condition, noise), noise()
        times = per_image(self.times(denoiser.schedule), start)
        x_t = denoiser.schedule.sigma(times[0]) * start
        for t, s in pairwise(times):
            x_t = self.step(walk, x_t, t, s)
            if on_step is not None:
                on_step(s, x_t)
        return x_t
