"""The walk from noise back to data that all samplers share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser, GuidedDenoiser, Prediction

__all__ = ["Sampler"]


class Sampler(ABC):
    """Turns noise into images by `step`, one call for each pair of successive times.

    Args:
        num_steps: how many steps; None takes all T of a discrete schedule.
        clip: the limit that each estimate of x_0 is held to (1 for images in [-1, 1]), or None.

    Raises:
        ValueError: if `num_steps` is under 1 or `clip` is not positive.
    """

    stochastic = False
    """Whether `step` uses its noise."""

    def __init__(self, num_steps: int | None = None, clip: float | None = None) -> None:
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"a sampler needs num_steps >= 1, got {num_steps}; null takes every step of the schedule")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip is the largest |x_0| allowed and must be positive, got {clip}; null turns it off")
        self.num_steps = num_steps
        self.clip = clip

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        label: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One step from x_t to x_s, s < t.

        Args:
            denoiser: the model.
            x_t: images at time `t`, [B, C, H, W].
            t, s: times from and to, [B, 1, 1, 1].
            label: classes [B], or None.
            noise: standard Gaussian noise like `x_t`; needed where the sampler is `stochastic`.
        """

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        noise: Callable[[], Tensor],
        label: Tensor | None = None,
        on_step: Callable[[], object] | None = None,
    ) -> Tensor:
        """Draw a batch of images, about [-1, 1], [B, C, H, W].

        Args:
            denoiser: the model, in evaluation mode.
            noise: gives standard Gaussian noise [B, C, H, W]: the start at its first call, then a step's noise.
            label: classes [B], or None.
            on_step: called after each step.

        Raises:
            ValueError: if the schedule cannot take `num_steps`.
        """
        times = denoiser.schedule.times(self.num_steps).view(-1, 1, 1, 1, 1)
        start = noise()
        times = times.expand(-1, len(start), 1, 1, 1)
        x_t = denoiser.schedule.sigma(times[0]) * start
        for t, s in pairwise(times):
            x_t = self.step(denoiser, x_t, t, s, label, noise() if self.stochastic else None)
            if on_step is not None:
                on_step()
        return x_t

    def predict(self, denoiser: Denoiser | GuidedDenoiser, x_t: Tensor, t: Tensor, label: Tensor | None) -> Prediction:
        """What the model makes of `x_t`, with x_0 clipped if asked for."""
        prediction = denoiser(x_t, t, label)
        return prediction if self.clip is None else prediction.clip(self.clip)
