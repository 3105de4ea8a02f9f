"""The cosine schedule in continuous time."""

import math

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule


class CosineContinuousSchedule(Schedule):
    """log SNR = -2 log tan(pi t a / 2), where a < 1 makes it `log_snr_min` at t = 1 (Hoogeboom et al. 2023, section 3).

    arXiv:2301.11093.

    Args:
        log_snr_min: log SNR at t = 1, before the shift; a ValueError outside [-30, -4]: over -4 a tenth of the signal
            would be left.
        shift: as `Schedule`; the paper's is resolution / 64.
    """

    def __init__(self, log_snr_min: float = -15.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        if not -30 <= log_snr_min <= -4:
            raise ValueError(
                f"log_snr_min must lie in [-30, -4], so that t = 1 is noise but differs from t = 0.999; got "
                f"{log_snr_min}, -15 is usual"
            )
        self.angle = math.atan(math.exp(-log_snr_min / 2))
        self.check_end("shift, or lower log_snr_min")

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.tan(self.angle * t.double()).log() - self.log_shift

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.atan((-(log_snr.double() + self.log_shift) / 2).exp()) / self.angle
