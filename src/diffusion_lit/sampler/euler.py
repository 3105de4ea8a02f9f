"""Euler's method on the probability-flow ODE, with or without churn."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.sampler.base import Sampler, Walk


@dataclass(kw_only=True)
class EulerSampler(Sampler):
    """dx = x_0 d alpha + eps d sigma, one slope a step: algorithm 2 of Karras et al. 2022, uncorrected.

    Without churn it is DDIM. Churn first moves the image back to a higher noise level by adding new noise. A
    negative setting of it is a ValueError. arXiv:2206.00364.

    Args, besides those of `Sampler`:
        churn: S_churn; a step raises sigma / alpha by the factor 1 + min(churn / num_steps, sqrt(2) - 1). 0 is
            deterministic.
        churn_min, churn_max: S_min and S_max, the range of sigma / alpha with churn; None means infinity.
        churn_noise: S_noise, the standard deviation of the noise added.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float | None = None
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.churn_min, self.churn_max
        if self.churn < 0 or least < 0 or self.churn_noise < 0 or (most is not None and most < least):
            raise ValueError(
                "churn, churn_min, churn_noise must not be negative, nor churn_max under churn_min; got "
                f"churn={self.churn}, churn_min={least}, churn_max={most}, churn_noise={self.churn_noise}"
            )

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_t, t = self.churned(walk, x_t, t)
        p = walk.predict(x_t, t)
        alpha, sigma, _ = walk.schedule.coefficients(s)
        return alpha * p.x_0 + sigma * p.eps

    def churned(self, walk: Walk, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The image with more noise, and the later time to which it then belongs."""
        if not self.stochastic:
            return x_t, t
        schedule = walk.schedule
        level = (-schedule.log_snr(t) / 2).exp()
        gain = min(self.churn / (self.num_steps or schedule.num_timesteps or 1), math.sqrt(2) - 1)
        later = schedule.time(-2 * (level * (1 + gain)).log()).clamp(max=1).to(t.dtype)
        inside = (level >= self.churn_min) & (level <= (math.inf if self.churn_max is None else self.churn_max))
        churns = inside & (later > t) & (schedule.alpha(t) > 0)  # at t = 1, or without signal, no noise can be added
        churned = schedule.diffuse(x_t, self.churn_noise * walk.noise(), t, later)
        return torch.where(churns, churned, x_t), torch.where(churns, later, t)
