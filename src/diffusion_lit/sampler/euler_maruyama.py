"""Euler and Maruyama's method on the reverse SDE."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.sampler.base import Sampler, Walk
from diffusion_lit.sampler.heun import refuse_zero_terminal_snr


@dataclass
class EulerMaruyamaSampler(Sampler):
    """dx = (f x - g^2 score) dt + g dw, backwards in time (Song et al. 2021, eq. 6, arXiv:2011.13456).

        x_s = (1 + F) x_t + G score + sqrt(G) noise
        F = log(alpha_s / alpha_t) = -integral f dt,    G = sigma_t^2 - sigma_s^2 + 2 F sigma_t^2 ~ integral g^2 dt

    The coefficients are integrated over the step, so that the last one, to t = 0, stays finite; it adds no noise.
    Arguments are those of `Sampler`.
    """

    stochastic = True

    def check(self, denoiser: BaseDenoiser) -> None:
        super().check(denoiser)
        refuse_zero_terminal_snr(self, denoiser.schedule)

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = walk.predict(x_t, t)
        alpha, sigma, _ = walk.schedule.coefficients(s)
        drift = torch.log(alpha / p.alpha)
        diffusion = p.sigma**2 - sigma**2 + 2 * drift * p.sigma**2
        return (1 + drift) * x_t + diffusion * p.score + (s > 0) * diffusion.sqrt() * walk.noise()
