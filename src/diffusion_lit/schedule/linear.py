"""The linear schedule of DDPM."""

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule

__all__ = ["LinearSchedule"]


class LinearSchedule(DiscreteSchedule):
    """beta_t = beta_min + (t - 1) / (T - 1) (beta_max - beta_min), t = 1..T (Ho et al. 2020, section 4).

    arXiv:2006.11239.

    Args:
        num_timesteps: T.
        beta_min: the first step's variance.
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
        super().__init__(
            torch.linspace(beta_min, beta_max, num_timesteps, dtype=torch.float64), shift, zero_terminal_snr
        )
