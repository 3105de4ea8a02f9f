"""A noise schedule of one's own: a function and its inverse."""

import torch
from torch import Tensor

from diffusion_lit.schedule import Schedule


class LogitSchedule(Schedule):
    """log SNR = -2 k logit(t): at k = 1, flow matching's noise levels on the variance-preserving circle."""

    def __init__(self, k: float = 1.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        if k <= 0:
            raise ValueError(f"schedule.k must be positive, got {k}")
        self.k = k

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * self.k * torch.logit(t.double()) - self.log_shift

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-(log_snr.double() + self.log_shift) / (2 * self.k))
