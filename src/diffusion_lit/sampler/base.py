"""The walk from noise back to data that all samplers share."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.schedule import Schedule, check_spacing, per_image, spaced_times

__all__ = ["History", "Noise", "Sampler"]

Noise = Callable[[], Tensor]
"""Gives standard Gaussian noise [B, C, H, W], new at each call."""

History = deque[tuple[Tensor, Prediction]]
"""The last steps of a multistep solver, oldest first: the time, and what the model made of the image then."""


class Sampler(ABC):
    """Turns noise into images by `step`, one call for each pair of successive times.

    Args:
        num_steps: how many steps; None takes all T of a discrete schedule.
        clip: the limit that each estimate of x_0 is held to (1 for images in [-1, 1]), or None.
        percentile: of dynamic thresholding: an estimate of which this share is within the limit is cut off, another
            scaled down to it first. None always cuts off; Imagen's is 0.995.
        spacing: where the steps lie: uniform, trailing, leading, quadratic, karras or log_snr; None takes the
            schedule's own.

    Raises:
        ValueError: if an argument is out of range.
    """

    stochastic = False
    """Whether `step` uses its noise."""
    num_previous = 0
    """How many earlier steps `step` looks back on."""

    def __init__(
        self,
        num_steps: int | None = 50,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"a sampler needs num_steps >= 1, got {num_steps}; null takes every step of the schedule")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip is the largest |x_0| allowed and must be positive, got {clip}; null turns it off")
        if percentile is not None and (clip is None or not 0 < percentile < 1):
            raise ValueError(
                f"percentile must lie in (0, 1) and needs clip, got percentile={percentile}, clip={clip}; Imagen's are "
                "0.995 and 1"
            )
        if spacing is not None:
            check_spacing(spacing)
        self.num_steps = num_steps
        self.clip = clip
        self.percentile = percentile
        self.spacing = spacing

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        label: Tensor | None = None,
        noise: Noise | None = None,
        history: History | None = None,
    ) -> Tensor:
        """One step from x_t to x_s, s < t.

        Args:
            denoiser: the model.
            x_t: images at time `t`, [B, C, H, W].
            t, s: times from and to, [B, 1, 1, 1].
            label: classes [B], or None.
            noise: needed where the sampler is `stochastic`.
            history: the steps before this one, to which it adds itself; None forgets them.
        """

    def times(self, schedule: Schedule) -> Tensor:
        """The times that the walk visits, float64 [num_steps + 1].

        Raises:
            ValueError: if the schedule cannot be walked so.
        """
        return spaced_times(schedule, self.num_steps, self.spacing)

    def check(self, denoiser: Denoiser | GuidedDenoiser) -> None:
        """Raise a ValueError if the sampler cannot draw from `denoiser`."""
        self.times(denoiser.schedule)
        if self.clip is not None and not denoiser.space.bounded:
            raise ValueError(
                f"clip={self.clip} would cut off {denoiser.space.name}, which may lie anywhere: use sampler.clip=null"
            )

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        noise: Noise,
        label: Tensor | None = None,
        on_step: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Draw a batch of images, about [-1, 1], [B, C, H, W].

        Args:
            denoiser: the model, in evaluation mode.
            noise: gives standard Gaussian noise [B, C, H, W]: the start at its first call, then a step's noise.
            label: classes [B], or None.
            on_step: called with s and x_s after each step.

        Raises:
            ValueError: if the sampler cannot draw from `denoiser`.
        """
        self.check(denoiser)
        start = noise()
        times = per_image(self.times(denoiser.schedule), start)
        x_t = denoiser.schedule.sigma(times[0]) * start
        history = History(maxlen=self.num_previous)
        for t, s in pairwise(times):
            x_t = self.step(denoiser, x_t, t, s, label, noise, history)
            if on_step is not None:
                on_step(s, x_t)
        return x_t

    def predict(self, denoiser: Denoiser | GuidedDenoiser, x_t: Tensor, t: Tensor, label: Tensor | None) -> Prediction:
        """What the model makes of `x_t`, with x_0 clipped if asked for."""
        prediction = denoiser(x_t, t, label)
        return prediction if self.clip is None else prediction.clip(self.clip, self.percentile)


def remember(history: History | None, schedule: Schedule, t: Tensor, p: Prediction) -> None:
    """Add a step, unless log SNR is infinite at its time: nothing can be extrapolated from there."""
    if history is not None and schedule.log_snr(t).isfinite().all():
        history.append((t, p))
