"""Euler's method on the probability-flow ODE, with or without churn."""

import math

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise, Sampler

__all__ = ["EulerSampler"]


class EulerSampler(Sampler):
    """dx = x_0 d alpha + eps d sigma, one slope a step: algorithm 2 of Karras et al. 2022, uncorrected.

    Without churn it is DDIM. Churn first moves the image back to a higher noise level by adding new noise.
    arXiv:2206.00364.

    Args:
        num_steps: how many steps.
        churn: S_churn; a step raises sigma / alpha by the factor 1 + min(churn / num_steps, sqrt(2) - 1). 0 is
            deterministic.
        churn_min, churn_max: S_min and S_max, the range of sigma / alpha within which there is churn; None is no end.
        churn_noise: S_noise, the standard deviation of the noise added.
        clip, percentile, spacing: as `Sampler`.

    Raises:
        ValueError: if a churn setting is negative, or as `Sampler`.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        churn_noise: float = 1.0,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        super().__init__(num_steps, clip, percentile, spacing)
        if churn < 0 or churn_min < 0 or churn_noise < 0 or (churn_max is not None and churn_max < churn_min):
            raise ValueError(
                f"churn, churn_min, churn_noise must not be negative, nor churn_max under churn_min; got churn={churn}"
                f", churn_min={churn_min}, churn_max={churn_max}, churn_noise={churn_noise}"
            )
        self.churn, self.churn_min, self.churn_noise = churn, churn_min, churn_noise
        self.churn_max = math.inf if churn_max is None else churn_max
        self.stochastic = churn > 0

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
        return denoiser.schedule.alpha(s) * p.x_0 + denoiser.schedule.sigma(s) * p.eps

    def churned(
        self, denoiser: Denoiser | GuidedDenoiser, x_t: Tensor, t: Tensor, noise: Noise | None
    ) -> tuple[Tensor, Tensor]:
        """The image with more noise, and the later time to which it then belongs."""
        if self.churn == 0:
            return x_t, t
        assert noise is not None
        schedule = denoiser.schedule
        level = (-schedule.log_snr(t) / 2).exp()
        gain = min(self.churn / (self.num_steps or schedule.num_timesteps or 1), math.sqrt(2) - 1)
        later = schedule.time(-2 * (level * (1 + gain)).log()).clamp(max=1).to(t.dtype)
        churns = (level >= self.churn_min) & (level <= self.churn_max) & (later > t)  # at t = 1 there is none to add
        churned = schedule.diffuse(x_t, self.churn_noise * noise(), t, later)
        return torch.where(churns, churned, x_t), torch.where(churns, later, t)
