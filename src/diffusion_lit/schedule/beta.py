"""Chains whose betas follow a curve from a first value to a last one."""

from abc import abstractmethod

from torch import Tensor

from diffusion_lit.schedule.discrete import DiscreteSchedule


class BetaSchedule(DiscreteSchedule):
    """A chain that a member describes by its `curve` of betas.

    Args:
        num_timesteps: T.
        beta_min, beta_max: the variance of a step at the curve's start, and at its end.
        shift, zero_terminal_snr: as `DiscreteSchedule`.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        super().__init__(self.curve(beta_min, beta_max, num_timesteps), shift, zero_terminal_snr)

    @staticmethod
    @abstractmethod
    def curve(beta_min: float, beta_max: float, num_timesteps: int) -> Tensor:
        """beta_1 to beta_T, float64 [num_timesteps]."""
