"""A schedule whose betas follow a logistic curve."""

import torch
from torch import Tensor

from diffusion_lit.schedule.beta import BetaSchedule


class SigmoidSchedule(BetaSchedule):
    """beta_t = sigmoid(-6 + 12 t / T) (beta_max - beta_min) + beta_min, t = 1..T (Xu et al. 2022, arXiv:2203.02923)."""

    @staticmethod
    def curve(beta_min: float, beta_max: float, num_timesteps: int) -> Tensor:
        t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        return torch.sigmoid(-6 + 12 * t) * (beta_max - beta_min) + beta_min
