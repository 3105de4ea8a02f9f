"""DPM-Solver++ of third order, multistep."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.sampler.base import Sampler, Walk


@dataclass
class DPMpp3MSampler(Sampler):
    """DPM-Solver++(3M) (Lu et al. 2022b, section 4, arXiv:2211.01095), one network call a step.

        x_s = (sigma_s / sigma_t) x_t + alpha_s integral_0^h e^(u - h) x_0(u) du,      u = (log SNR - log SNR(t)) / 2,

    with x_0(u) the parabola through the last three estimates. As many as there are at first; the last step, to
    h = infinity, takes x_0 as it is. Arguments are those of `Sampler`.
    """

    num_previous = 2

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = walk.predict(x_t, t)
        alpha, sigma, log_snr = walk.schedule.coefficients(s)
        here = p.log_snr / 2
        h = log_snr / 2 - here
        phi_1 = -torch.expm1(-h)  # integral of e^(u - h) over (0, h)
        drift = phi_1.to(t.dtype) * p.x_0
        if walk.history and (s > 0).all():
            phi_2 = (1 - phi_1 / h).to(t.dtype)  # of e^(u - h) (u / h)
            phi_3 = (1 - 2 * (1 - phi_1 / h) / h).to(t.dtype)  # of e^(u - h) (u / h)^2
            points = [(((q.log_snr / 2 - here) / h).to(t.dtype), q.x_0) for q in reversed(walk.history)]
            (u_1, x_1), (u_2, x_2) = points[0], points[-1]
            slope_1 = (x_1 - p.x_0) / u_1
            if len(points) == 1:
                drift = drift + phi_2 * slope_1
            else:  # Newton's form of the parabola: x_0 + slope_1 u + bend u (u - u_1)
                bend = ((x_2 - x_1) / (u_2 - u_1) - slope_1) / u_2
                drift = drift + phi_2 * (slope_1 - bend * u_1) + phi_3 * bend
        walk.remember(p)
        return sigma / p.sigma * x_t + alpha * drift
