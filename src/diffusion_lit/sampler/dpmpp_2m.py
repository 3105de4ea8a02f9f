"""DPM-Solver++ of second order, multistep."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.sampler.base import Sampler, Walk


@dataclass
class DPMpp2MSampler(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2, arXiv:2211.01095), one network call a step.

        x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D,      h = (lambda_s - lambda_t) / 2, lambda = log SNR,

    exact where D = x_0 is constant; D extrapolates it from the step before to the middle of this one. The first step,
    and the last, to h = infinity, take x_0 as it is. Arguments are those of `Sampler`.
    """

    num_previous = 1

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = walk.predict(x_t, t)
        alpha, sigma, log_snr = walk.schedule.coefficients(s)
        h = (log_snr - p.log_snr) / 2
        middle = p.x_0
        if walk.history and (s > 0).all():
            q = walk.history[-1]
            h_previous = (p.log_snr - q.log_snr) / 2
            middle = p.x_0 + (h / h_previous / 2).to(t.dtype) * (p.x_0 - q.x_0)
        walk.remember(p)
        return sigma / p.sigma * x_t - alpha * torch.expm1(-h).to(t.dtype) * middle
