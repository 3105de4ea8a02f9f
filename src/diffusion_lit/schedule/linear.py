"""The linear schedule of DDPM."""

import torch
from torch import Tensor

from diffusion_lit.schedule.beta import BetaSchedule


class LinearSchedule(BetaSchedule):
    """beta_t = beta_min + (t - 1) / (T - 1) (beta_max - beta_min), t = 1..T (Ho et al. 2020, section 4).

    arXiv:2006.11239.
    """

    @staticmethod
    def curve(beta_min: float, beta_max: float, num_timesteps: int) -> Tensor:
        return torch.linspace(beta_min, beta_max, num_timesteps, dtype=torch.float64)
