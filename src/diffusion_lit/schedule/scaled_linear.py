"""The schedule of latent diffusion models."""

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule

__all__ = ["ScaledLinearSchedule"]


class ScaledLinearSchedule(DiscreteSchedule):
    """sqrt(beta_t) = sqrt(beta_min) + (t - 1) / (T - 1) (sqrt(beta_max) - sqrt(beta_min)), t = 1..T.

    Latent diffusion's (Rombach et al. 2022, arXiv:2112.10752), and so Stable Diffusion's, whose beta_min = 0.00085 and
    beta_max = 0.012 stop short of noise: with those, set `zero_terminal_snr`. The defaults are DDPM's range.

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
        roots = torch.linspace(beta_min**0.5, beta_max**0.5, num_timesteps, dtype=torch.float64)
        super().__init__(roots**2, shift, zero_terminal_snr)
