"""A schedule whose betas follow a logistic curve."""

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule

__all__ = ["SigmoidSchedule"]


class SigmoidSchedule(DiscreteSchedule):
    """beta_t = sigmoid(-6 + 12 t / T) (beta_max - beta_min) + beta_min, t = 1..T (Xu et al. 2022, arXiv:2203.02923).

    Args:
        num_timesteps: T.
        beta_min: the variance below which no step falls.
        beta_max: the variance above which no step rises.
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
        betas = torch.sigmoid(-6 + 12 * t) * (beta_max - beta_min) + beta_min
        super().__init__(betas, shift, zero_terminal_snr)
