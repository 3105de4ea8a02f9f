"""The network, the schedule and the parameterization, joined: noisy image in, estimate of the clean one out."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diffusion_lit.parameterization import Coefficients, Parameterization
from diffusion_lit.schedule import Schedule
from diffusion_lit.space import PixelSpace, Space

__all__ = ["Denoiser", "Prediction"]

VARIANCES = {"small": 0.0, "large": 1.0, "learned": None}


@dataclass(frozen=True)
class Prediction:
    """What the model makes of x_t. All images are [B, C, H, W]; alpha and sigma broadcast against them."""

    x_0: Tensor
    """The estimate of the clean image, E[x_0 | x_t] for a perfect model."""
    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    output: Tensor
    """The network's raw output F."""
    variance: Tensor | None = None
    """Where the network learns it: the share of the way from the small to the large log variance, about [0, 1]."""

    @property
    def eps(self) -> Tensor:
        """The noise that `x_0` leaves in x_t: (x_t - alpha x_0) / sigma."""
        return (self.x_t - self.alpha * self.x_0) / self.sigma

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x_0 (Salimans & Ho 2022, arXiv:2202.00512)."""
        return self.alpha * self.eps - self.sigma * self.x_0

    @property
    def score(self) -> Tensor:
        """The gradient of log p_t at x_t: -eps / sigma (Song et al. 2021, arXiv:2011.13456)."""
        return -self.eps / self.sigma

    def clip(self, limit: float, percentile: float | None = None) -> "Prediction":
        """The same with x_0 held to [-limit, limit]; eps, v and score follow.

        Args:
            limit: the largest |x_0|.
            percentile: in (0, 1): an image whose |x_0| has this quantile beyond the limit is first scaled down to it,
                rather than cut off (dynamic thresholding, Saharia et al. 2022, section 2.3, arXiv:2205.11487).
        """
        x_0 = self.x_0
        if percentile is not None:
            extent = x_0.flatten(1).abs().float().quantile(percentile, dim=1).clamp(min=limit).to(x_0.dtype)
            x_0 = x_0 * (limit / extent).view(-1, 1, 1, 1)
        return replace(self, x_0=x_0.clamp(-limit, limit))

    def log_variance(self, schedule: Schedule, s: Tensor, t: Tensor, variance: str) -> Tensor:
        """log variance of p(x_s | x_t), `variance` being small, large or learned (see `Schedule.log_variance`).

        The decoder (s = 0) has the small one also where the others are large, for a better likelihood (FIXED_LARGE of
        improved-diffusion, and Ho et al.'s code).
        """
        fraction = self.variance if variance == "learned" else VARIANCES[variance]
        assert fraction is not None, "checked at start-up"
        if variance == "large":
            fraction = s > 0
        return schedule.log_variance(s, t, fraction)


class Denoiser(nn.Module):
    """x_0 = c_skip x_t + c_out F(c_in x_t, c_noise(t), label).

    Args:
        network: (image [B, C, H, W], c_noise [B], label [B] or None) -> [B, C, H, W], or [B, 2 C, H, W] if its
            `learn_variance` is true: the second half is then the variance, -1 for small and 1 for large. Where it has
            an `augmentation_dim` over 0, training gives it what was done to the images, [B, augmentation_dim], too.
        schedule: how much signal and noise there is at each time.
        parameterization: what the network's output means.
        space: what x_0 is; None is pixels.

    Raises:
        ValueError: if the parameterization cannot give x_0 at some time of the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        space: Space | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.space = space or PixelSpace()
        end = torch.ones(1)
        if not all(c.isfinite().all() for c in self.coefficients(end)):
            raise ValueError(
                f"{type(parameterization).__name__} cannot give x_0 at t = 1 of {type(schedule).__name__}, where no "
                "signal is left: it divides by alpha = 0. Use parameterization=v, velocity, x0 or edm, or a schedule "
                "that keeps some signal (zero_terminal_snr=false)"
            )

    @property
    def num_classes(self) -> int | None:
        """How many classes the network knows, its null label not counted; None if it is unconditional."""
        return getattr(self.network, "num_classes", None)

    @property
    def learns_variance(self) -> bool:
        """Whether the network also says how uncertain a reverse step is."""
        return bool(getattr(self.network, "learn_variance", False))

    @property
    def null_label(self) -> int:
        """The label that means no class: the one after the last."""
        if self.num_classes is None:
            raise ValueError("an unconditional model has no labels; use a model with num_classes")
        return self.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the x_0 that the network was made for."""
        return (self.network.image_channels, self.network.resolution, self.network.resolution)  # type: ignore[return-value]

    def forward(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Prediction:
        """Denoise `x_t` [B, C, H, W] from the times `t` [B, 1, 1, 1] given the classes `label` [B], or None.

        `augmentation` is what the network is told of how the images were augmented, [B, k]: in training only. None is
        not augmented.
        """
        log_snr = self.schedule.log_snr(t)
        alpha, sigma = self.schedule.signal(log_snr).to(t.dtype), self.schedule.noise(log_snr).to(t.dtype)
        c_skip, c_out, c_in = self.parameterization(alpha, sigma)
        told = () if augmentation is None else (augmentation,)
        output = self.network(c_in * x_t, self.schedule.c_noise(t).flatten(), label, *told).to(x_t.dtype)
        variance = None
        if self.learns_variance:
            output, variance = output.chunk(2, dim=1)
            variance = (variance + 1) / 2
        return Prediction(c_skip * x_t + c_out * output, x_t, alpha, sigma, output, variance)

    def coefficients(self, t: Tensor) -> Coefficients:
        """c_skip, c_out and c_in at the times `t`, each in its shape."""
        return self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))

    def target(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network's output should be: (x_0 - c_skip x_t) / c_out."""
        c_skip, c_out, _ = self.coefficients(t)
        return (x_0 - c_skip * x_t) / c_out
