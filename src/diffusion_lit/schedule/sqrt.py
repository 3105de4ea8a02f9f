"""The schedule of Diffusion-LM."""

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule


class SqrtSchedule(DiscreteSchedule):
    """abar_t = 1 - sqrt(t / T + s), t = 1..T (Li et al. 2022, appendix A, arXiv:2205.14217).

    Noise comes early: a step of it loses half of the signal that a linear schedule loses in a hundred. beta_t is
    clipped, so that the chain ends before its signal is 0 (the square root reaches 1 at t = 1 - s).

    Args:
        num_timesteps: T.
        s: the offset that sets the noise at t = 0, about s^(1/4) standard deviations; a ValueError outside [0, 1).
        clip_max: the largest beta; a ValueError outside (0, 1).
        shift, zero_terminal_snr: as `DiscreteSchedule`.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        s: float = 1e-4,
        clip_max: float = 0.999,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        if not (0 <= s < 1 and 0 < clip_max < 1):
            raise ValueError(f"need 0 <= s < 1 and 0 < clip_max < 1, got s={s}, clip_max={clip_max}")
        t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        abar = torch.cat([t.new_ones(1), (1 - (t + s).sqrt()).clamp(min=0)])
        betas = torch.where(abar[:-1] > 0, 1 - abar[1:] / abar[:-1], 1.0).clamp(max=clip_max)
        super().__init__(betas, shift, zero_terminal_snr)
