"""DPM-Solver++ of second order, multistep."""

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise, Sampler, remember

__all__ = ["DPMpp2MSampler"]


class DPMpp2MSampler(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2, arXiv:2211.01095), one network call a step.

        x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D,      h = (lambda_s - lambda_t) / 2, lambda = log SNR,

    exact where D = x_0 is constant; D extrapolates it from the step before to the middle of this one. The first step,
    and the last, to h = infinity, take x_0 as it is. Arguments are those of `Sampler`.
    """

    num_previous = 1

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
        schedule = denoiser.schedule
        p = self.predict(denoiser, x_t, t, label)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        middle = p.x_0
        if history and (s > 0).all():
            r, q = history[-1]
            h_previous = (schedule.log_snr(t) - schedule.log_snr(r)) / 2
            middle = p.x_0 + (h / h_previous / 2).to(t.dtype) * (p.x_0 - q.x_0)
        remember(history, schedule, t, p)
        return schedule.sigma(s) / p.sigma * x_t - schedule.alpha(s) * torch.expm1(-h).to(t.dtype) * middle
