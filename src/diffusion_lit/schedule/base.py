"""What every noise schedule answers: how much signal and how much noise there is at time t."""

import math
import warnings
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.fixed_precision import FixedPrecision

MAX_TERMINAL_KL = 1e-3
"""Nats per dimension. The four published chains end below it, Stable Diffusion's (2.4e-3) above it."""


class Schedule(FixedPrecision, ABC):
    """The forward process x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], 0 = data, 1 = noise.

    A schedule is its log SNR and the inverse of it; alpha and sigma follow, here so that alpha^2 + sigma^2 = 1. Times
    travel as [B, 1, 1, 1] (or any shape that broadcasts against images). Values are computed in float64 and returned in
    the dtype of `t`, but for `log_snr` and `time`, which stay float64: their differences nearly cancel.

    Args:
        shift: divides alpha / sigma at every time, so that larger images, whose pixels average more noise away, lose
            their signal as early as smaller ones; resolution / 64, say (Hoogeboom et al. 2023, eq. 4,
            arXiv:2301.11093). A ValueError unless positive.
    """

    spacing = "trailing"
    """Where sampling steps lie by default (see `spaced_times`)."""
    t_min = 1e-3
    """The least time but 0 at which the network is asked; nearer to the data, rounding would drown the noise."""
    num_timesteps: int | None = None
    """T, where there are only so many steps."""
    variance_preserving = True
    """Whether alpha^2 + sigma^2 = 1. Elsewhere (alpha, sigma) must move along a straight line."""

    def __init__(self, shift: float = 1.0) -> None:
        super().__init__()
        if shift <= 0:
            raise ValueError(f"schedule.shift must be positive, got {shift}; 1 disables it, resolution / 64 is usual")
        self.log_shift = 2 * math.log(shift)

    def check_end(self, remedy: str) -> None:
        """Warn if t = 1 is far from noise; `remedy` is what to raise."""
        if (kl := self.terminal_kl()) > MAX_TERMINAL_KL:
            left = math.sqrt(-math.expm1(-2 * kl))  # alpha on that scale
            steps = f" with {self.num_timesteps} steps" if self.num_timesteps else ""
            warnings.warn(
                f"{type(self).__name__}{steps} ends far from noise: KL(q(x_1 | x_0) || N(0, I)) is {kl:.2g} nats per "
                f"dimension (over {MAX_TERMINAL_KL:g}), with {left:.1%} of the signal left, while "
                f"sampling starts from pure noise. Raise {remedy}.",
                stacklevel=4,
            )

    def terminal_kl(self) -> float:
        """KL(q(x_1 | x_0) || N(0, I)) in nats per dimension: what sampling gets wrong before its first step.

        On the variance-preserving scale, in the worst case, every pixel at -1 or 1: -log(sigma^2) / 2.
        """
        return float(F.softplus(self.log_snr(torch.ones((), dtype=torch.float64)))) / 2

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = log(alpha(t)^2 / sigma(t)^2) in float64, decreasing; +inf at t = 0."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`, in float64: the time at which it takes the given value."""

    def signal(self, log_snr: Tensor) -> Tensor:
        """alpha where log SNR is `log_snr`."""
        return log_snr.sigmoid().sqrt()

    def noise(self, log_snr: Tensor) -> Tensor:
        """sigma where log SNR is `log_snr`."""
        return (-log_snr).sigmoid().sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        """The signal's coefficient at `t`."""
        return self.signal(self.log_snr(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation at `t`."""
        return self.noise(self.log_snr(t)).to(t.dtype)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha and sigma at `t`, and the log SNR in float64 that both follow from."""
        log_snr = self.log_snr(t)
        return self.signal(log_snr).to(t.dtype), self.noise(log_snr).to(t.dtype), log_snr

    def scale(self, t: Tensor) -> Tensor:
        """sqrt(alpha^2 + sigma^2), by which x_t is larger than on the variance-preserving scale; 1 on that."""
        alpha, sigma, _ = self.coefficients(t)
        return torch.hypot(alpha, sigma)

    def snr(self, t: Tensor) -> Tensor:
        """SNR(t) = alpha^2 / sigma^2."""
        return self.log_snr(t).exp().to(t.dtype)

    def c_noise(self, t: Tensor) -> Tensor:
        """The network's noise-level input at `t` (EDM's c_noise)."""
        return 1000 * t

    def snap(self, t: Tensor) -> Tensor:
        """The time that `t` in (0, 1] stands for: `t` itself, but no less than `t_min`."""
        return t.clamp(min=self.t_min)

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) = N(alpha x_0, sigma^2 I) from the noise `eps` (Ho et al. 2020, eq. 4)."""
        alpha, sigma, _ = self.coefficients(t)
        return alpha * x_0 + sigma * eps

    def diffuse(self, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """A draw of q(x_t | x_s) = N((alpha_t / alpha_s) x_s, c sigma_t^2 I), s <= t, from the noise `eps`."""
        spread = self.denoised_fraction(s, t).sqrt() * self.sigma(t)
        return self.alpha(t) / self.alpha(s) * x_s + spread * eps

    def posterior(self, x_0: Tensor, x_t: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_s | x_t, x_0) for s < t (Ho et al. 2020, eq. 7; Kingma et al. 2021, A.2).

        With c = 1 - SNR(t) / SNR(s), which depends on the pair of times only,

            mean     = (alpha_t / alpha_s) (sigma_s^2 / sigma_t^2) x_t + alpha_s c x_0
            variance = c sigma_s^2

        x_0 and x_t are clean and noisy images [B, C, H, W], s and t times, broadcastable to them.
        """
        log_snr_s, log_snr_t = self.log_snr(s), self.log_snr(t)
        alpha_s, sigma_s = self.signal(log_snr_s), self.noise(log_snr_s)
        c = -torch.expm1(log_snr_t - log_snr_s)
        on_x_t = ((log_snr_t - log_snr_s) / 2).exp() * sigma_s / self.noise(log_snr_t)
        mean = on_x_t.to(t.dtype) * x_t + (alpha_s * c).to(t.dtype) * x_0
        return mean, (c * sigma_s**2).to(t.dtype)

    def denoised_fraction(self, s: Tensor, t: Tensor) -> Tensor:
        """c = 1 - SNR(t) / SNR(s), in [0, 1]: the share of the way from x_t to the data that a step to s goes."""
        return -torch.expm1(self.log_snr(t) - self.log_snr(s)).to(t.dtype)

    def log_variance(self, s: Tensor, t: Tensor, fraction: Tensor | float) -> Tensor:
        """log variance of p(x_s | x_t), between its bounds (Nichol & Dhariwal 2021, eq. 15, arXiv:2102.09672).

            lerp(log(c sigma_s^2), log(c sigma_t^2), fraction)

        0 is the small variance (beta tilde), 1 the large one (beta, for one step of a chain). At s = 0, where the small
        one vanishes, it is that of the step before, from 2 t to t, or the large one if no step comes before. A network
        that learns its variance says the `fraction`, broadcastable to the times s < t.
        """
        log_snr_s, log_snr_t, log_snr_2t = self.log_snr(s), self.log_snr(t), self.log_snr((2 * t).clamp(max=1))
        before, after = torch.where(s > 0, log_snr_s, log_snr_t), torch.where(s > 0, log_snr_t, log_snr_2t)
        log_large = (-torch.expm1(log_snr_t - log_snr_s)).log() + 2 * self.noise(log_snr_t).log()
        log_small = (-torch.expm1(after - before)).log() + 2 * self.noise(before).log()
        log_small = torch.where(after < before, log_small, log_large).to(t.dtype)
        weight = fraction.to(t.dtype) if isinstance(fraction, Tensor) else fraction
        return torch.lerp(log_small, log_large.to(t.dtype), weight)
