"""The straight path of rectified flow."""

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule


class FlowSchedule(Schedule):
    """alpha = 1 - t, sigma = t: from data to noise along a straight line (Liu et al. 2023, arXiv:2209.03003).

    Also the optimal-transport path of flow matching (Lipman et al. 2023, arXiv:2210.02747). At t = 1 no signal is left.

    By `shift`, t becomes shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23, arXiv:2403.03206).
    """

    variance_preserving = False

    def signal(self, log_snr: Tensor) -> Tensor:
        return (log_snr / 2).sigmoid()

    def noise(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).sigmoid()

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return 2 * (torch.log1p(-t) - t.log()) - self.log_shift

    def c_noise(self, t: Tensor) -> Tensor:
        """1000 sigma: of a shifted schedule, the shifted time."""
        return 1000 * self.sigma(t)

    def time(self, log_snr: Tensor) -> Tensor:
        return (-(log_snr.double() + self.log_shift) / 2).sigmoid()
