"""The cosine schedule of Improved DDPM."""

import math

import torch

from diffusion_lit.schedule.discrete import DiscreteSchedule


class CosineSchedule(DiscreteSchedule):
    """abar_t = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), t = 1..T (Nichol & Dhariwal 2021, eq. 17).

    beta_t = 1 - abar_t / abar_{t-1} is then clipped, so that the chain ends before its signal is exactly 0: by default
    to [1e-4, 0.9999]. Improved DDPM (arXiv:2102.09672) has [0, 0.999]: clip_min=1e-9 clip_max=0.999.

    Args:
        num_timesteps: T.
        s: the offset that keeps the first betas from vanishing; a ValueError if it is negative.
        clip_min, clip_max: the smallest and the largest beta; a ValueError unless 0 < clip_min < clip_max < 1.
        shift, zero_terminal_snr: as `DiscreteSchedule`.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        s: float = 0.008,
        clip_min: float = 1e-4,
        clip_max: float = 0.9999,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        if not 0 < clip_min < clip_max < 1:
            raise ValueError(f"need 0 < clip_min < clip_max < 1, got clip_min={clip_min}, clip_max={clip_max}")
        if s < 0:
            raise ValueError(f"the cosine schedule's offset s must not be negative, got s={s}; the paper's is 0.008")
        t = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        abar = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
        super().__init__((1 - abar[1:] / abar[:-1]).clamp(clip_min, clip_max), shift, zero_terminal_snr)
