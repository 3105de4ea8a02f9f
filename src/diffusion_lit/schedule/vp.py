"""The variance-preserving SDE."""

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule


class VPSchedule(Schedule):
    """alpha(t)^2 = exp(-beta_min t - (beta_max - beta_min) t^2 / 2) (Song et al. 2021, eq. 33, arXiv:2011.13456).

    The limit of DDPM's linear chain as T grows, with betas T times as large.

    Args:
        beta_min, beta_max: the rate of noising at t = 0, and at t = 1; a ValueError unless 0 < beta_min <= beta_max.
        shift: as `Schedule`.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        if not 0 < beta_min <= beta_max:
            raise ValueError(f"need 0 < beta_min <= beta_max, got beta_min={beta_min}, beta_max={beta_max}")
        self.beta_min, self.slope = beta_min, beta_max - beta_min
        self.check_end("beta_max")

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return -torch.expm1(self.beta_min * t + self.slope * t**2 / 2).log() - self.log_shift

    def time(self, log_snr: Tensor) -> Tensor:
        integral = torch.nn.functional.softplus(-(log_snr.double() + self.log_shift))  # of beta, from 0 to t
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * self.slope * integral).sqrt())

    def c_noise(self, t: Tensor) -> Tensor:
        return 999 * t  # the paper's networks receive 0..999
