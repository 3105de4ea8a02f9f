"""Heun's method on the probability-flow ODE: EDM's sampler."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.sampler.base import Sampler, Walk
from diffusion_lit.sampler.euler import EulerSampler
from diffusion_lit.schedule import Schedule


@dataclass
class HeunSampler(EulerSampler):
    """dx = x_0 d alpha + eps d sigma by the trapezoidal rule (Karras et al. 2022, algorithm 2, arXiv:2206.00364).

    Euler's step, then the same with the mean of the x_0 and eps at both ends. Of second order, at two network calls a
    step; the last step, to no noise at all, is Euler's.

    Args, besides those of `EulerSampler`:
        scaled: walk x_t / alpha instead, as the paper and others do with DDPM's networks. The same on EDM's schedule,
            where alpha = 1; where alpha comes near 0, as on a cosine schedule, the first steps are then too long.
    """

    num_steps: int | None = 25
    _: KW_ONLY
    scaled: bool = False

    def check(self, denoiser: BaseDenoiser) -> None:
        super().check(denoiser)
        if self.scaled:
            refuse_zero_terminal_snr(self, denoiser.schedule)

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_t, t = self.churned(walk, x_t, t)
        p = walk.predict(x_t, t)
        alpha, sigma, _ = walk.schedule.coefficients(s)
        euler = alpha * p.x_0 + sigma * p.eps
        if not (s > 0).all():
            return euler
        q = walk.predict(euler, s)
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
