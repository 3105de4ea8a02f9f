"""A schedule whose betas grow with the square of time."""

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule

__all__ = ["QuadraticSchedule"]


class QuadraticSchedule(DiscreteSchedule):
    """beta_t = beta_min + (beta_max - beta_min) (t / T)^2, t = 1..T.

    Not diffusers' `scaled_linear`, whose *square roots* are linear in time.

    Args:
        num_timesteps: T.
        beta_min: the variance that the first step tends to as T grows.
        beta_max: the last step's variance.
        shift: as `DiscreteSchedule`.
        zero_terminal_snr: as `DiscreteSchedule`.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        super().__init__(beta_min + (beta_max - beta_min) * t**2, shift, zero_terminal_snr)
