"""A schedule whose betas grow with the square of time."""

import torch
from torch import Tensor

from diffusion_lit.schedule.beta import BetaSchedule


class QuadraticSchedule(BetaSchedule):
    """beta_t = beta_min + (beta_max - beta_min) (t / T)^2, t = 1..T.

    Not diffusers' `scaled_linear`, whose *square roots* are linear in time.
    """

    @staticmethod
    def curve(beta_min: float, beta_max: float, num_timesteps: int) -> Tensor:
        t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        return beta_min + (beta_max - beta_min) * t**2
