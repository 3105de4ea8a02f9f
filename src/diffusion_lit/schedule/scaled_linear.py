"""The schedule of latent diffusion models."""

import torch
from torch import Tensor

from diffusion_lit.schedule.beta import BetaSchedule


class ScaledLinearSchedule(BetaSchedule):
    """sqrt(beta_t) = sqrt(beta_min) + (t - 1) / (T - 1) (sqrt(beta_max) - sqrt(beta_min)), t = 1..T.

    Latent diffusion's (Rombach et al. 2022, arXiv:2112.10752), and so Stable Diffusion's, whose beta_min = 0.00085 and
    beta_max = 0.012 stop short of noise: with those, set `zero_terminal_snr`. The defaults are DDPM's range.
    """

    @staticmethod
    def curve(beta_min: float, beta_max: float, num_timesteps: int) -> Tensor:
        return torch.linspace(beta_min**0.5, beta_max**0.5, num_timesteps, dtype=torch.float64) ** 2
