"""Heun's method on the probability-flow ODE: EDM's sampler."""

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise, Sampler
from diffusion_lit.sampler.euler import EulerSampler
from diffusion_lit.schedule import Schedule

__all__ = ["HeunSampler"]


class HeunSampler(EulerSampler):
    """dx = x_0 d alpha + eps d sigma by the trapezoidal rule (Karras et al. 2022, algorithm 2, arXiv:2206.00364).

    Euler's step, then the same with the mean of the x_0 and eps at both ends. Of second order, at two network calls a
    step; the last step, to no noise at all, is Euler's.

    Args:
        num_steps: how many steps.
        scaled: walk x_t / alpha instead, as the paper and others do with DDPM's networks. The same on EDM's schedule,
            where alpha = 1; where alpha comes near 0, as on a cosine schedule, the first steps are then too long.
        churn, churn_min, churn_max, churn_noise: as `EulerSampler`.
        clip, percentile, spacing: as `Sampler`.

    Raises:
        ValueError: as `EulerSampler`.
    """

    def __init__(
        self,
        num_steps: int | None = 25,
        scaled: bool = False,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        churn_noise: float = 1.0,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        super().__init__(num_steps, churn, churn_min, churn_max, churn_noise, clip, percentile, spacing)
        self.scaled = scaled

    def check(self, denoiser: Denoiser | GuidedDenoiser) -> None:
        super().check(denoiser)
        if self.scaled:
            refuse_zero_terminal_snr(self, denoiser.schedule)

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
        x_t, t = self.churned(denoiser, x_t, t, noise)
        p = self.predict(denoiser, x_t, t, label)
        alpha, sigma = denoiser.schedule.alpha(s), denoiser.schedule.sigma(s)
        euler = alpha * p.x_0 + sigma * p.eps
        if not (s > 0).all():
            return euler
        q = self.predict(denoiser, euler, s, label)
        x_0, eps = (p.x_0 + q.x_0) / 2, (p.eps + q.eps) / 2
        if self.scaled:
            return alpha / p.alpha * (x_t - p.sigma * eps) + sigma * eps
        return x_t + (alpha - p.alpha) * x_0 + (sigma - p.sigma) * eps


def refuse_zero_terminal_snr(sampler: Sampler, schedule: Schedule) -> None:
    """Raise a ValueError if `schedule` has no signal left at t = 1, where `sampler` divides by it."""
    if schedule.alpha(torch.ones(1)) == 0:
        raise ValueError(
            f"{type(sampler).__name__} divides by alpha, which is 0 at t = 1 of {type(schedule).__name__}: no signal "
            "is left there. Use sampler=ddim, euler, heun (scaled=false), dpmpp_2m, dpmpp_3m, unipc or ode"
        )
