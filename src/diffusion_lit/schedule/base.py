"""What every noise schedule answers: how much signal and how much noise there is at time t."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Schedule"]


class Schedule(nn.Module, ABC):
    """The forward process x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], 0 = data, 1 = noise.

    Times travel as [B, 1, 1, 1] (or any shape that broadcasts against images). Values are computed in float64
    and returned in the dtype of `t`.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's coefficient at `t`, in [0, 1] for a variance-preserving process."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation at `t`."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = log(alpha(t)^2 / sigma(t)^2), decreasing; +inf at t = 0."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`: the time in [0, 1] at which it takes the given value."""

    @abstractmethod
    def snap(self, t: Tensor) -> Tensor:
        """The time that `t` stands for: the next one on a discrete schedule's grid, `t` itself on a continuous one."""

    @abstractmethod
    def times(self, num_steps: int | None = None) -> Tensor:
        """Times for `num_steps` reverse steps, from 1 down to 0, [num_steps + 1]; None takes the schedule's own."""

    @abstractmethod
    def c_noise(self, t: Tensor) -> Tensor:
        """What the network is told of the time `t`."""

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) = N(alpha x_0, sigma^2 I) from the noise `eps` (Ho et al. 2020, eq. 4)."""
        return self.alpha(t) * x_0 + self.sigma(t) * eps

    def snr(self, t: Tensor) -> Tensor:
        """SNR(t) = alpha^2 / sigma^2."""
        return self.log_snr(t).exp()

    def posterior(self, x_0: Tensor, x_t: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_s | x_t, x_0) for s < t (Ho et al. 2020, eq. 7; Kingma et al. 2021, A.2).

        With c = 1 - SNR(t) / SNR(s), which depends on the pair of times only,

            mean     = (alpha_t / alpha_s) (sigma_s^2 / sigma_t^2) x_t + alpha_s c x_0
            variance = c sigma_s^2

        Args:
            x_0: clean images [B, C, H, W].
            x_t: noisy images [B, C, H, W].
            s, t: times, broadcastable to the images.
        """
        alpha_s, alpha_t, sigma_s, sigma_t = self.alpha(s), self.alpha(t), self.sigma(s), self.sigma(t)
        c = self.denoised_fraction(s, t)
        mean = (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2 * x_t + alpha_s * c * x_0
        return mean, c * sigma_s**2

    def denoised_fraction(self, s: Tensor, t: Tensor) -> Tensor:
        """c = 1 - SNR(t) / SNR(s), in [0, 1]: the share of the way from x_t to the data that a step to s goes."""
        return -torch.expm1(self.log_snr(t) - self.log_snr(s))
