"""The noise levels of EDM."""

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule


class EDMSchedule(Schedule):
    """alpha = 1, sigma^(1/rho) linear in time from sigma_min at t_min to sigma_max (Karras et al. 2022, eq. 5).

    The paper's steps are so evenly spread in time, and a uniform density trains where they are. Below t_min = 1/1000,
    sigma goes to 0 linearly. arXiv:2206.00364.

    Args:
        sigma_min, sigma_max: the least noise that the network is asked about, and that at t = 1; a ValueError unless
            0 < sigma_min < sigma_max.
        rho: how much closer steps lie where there is less noise; a ValueError under 1.
    """

    spacing = "uniform"
    variance_preserving = False

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        super().__init__()
        if not 0 < sigma_min < sigma_max or rho < 1:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max and rho >= 1, got sigma_min={sigma_min}, sigma_max={sigma_max}, "
                f"rho={rho}; the paper's are 0.002, 80 and 7"
            )
        self.sigma_min, self.rho = sigma_min, rho
        self.root_min, self.root_max = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        self.check_end("sigma_max")

    def signal(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)

    def noise(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).exp()

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        share = ((t - self.t_min) / (1 - self.t_min)).clamp(min=0)
        root = self.root_min + share * (self.root_max - self.root_min)
        return -2 * (self.rho * root.log() + (t / self.t_min).clamp(max=1).log())

    def time(self, log_snr: Tensor) -> Tensor:
        sigma = (-log_snr.double() / 2).exp()
        share = (sigma ** (1 / self.rho) - self.root_min) / (self.root_max - self.root_min)
        near = sigma < self.sigma_min
        return torch.where(near, self.t_min * sigma / self.sigma_min, self.t_min + share * (1 - self.t_min))

    def c_noise(self, t: Tensor) -> Tensor:
        """log(sigma) / 4."""
        return (-self.log_snr(t) / 8).to(t.dtype)
