"""The network, the schedule and the parameterization, joined: noisy image in, estimate of the clean one out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.model.base import Network
from diffusion_lit.parameterization import Parameterization
from diffusion_lit.schedule import Schedule
from diffusion_lit.space import PixelSpace, Space

__all__ = ["VARIANCES", "BaseDenoiser", "Denoiser", "Prediction"]

VARIANCES = ("small", "large", "learned")


@dataclass(frozen=True)
class Prediction:
    """What the model makes of x_t. Images are [B, C, H, W]; times and coefficients are [B, 1, 1, 1]."""

    schedule: Schedule
    t: Tensor
    x_t: Tensor
    x_0: Tensor
    """The estimate of the clean image, E[x_0 | x_t] for a perfect model."""
    output: Tensor
    """The network's raw output F."""
    alpha: Tensor
    sigma: Tensor
    c_skip: Tensor
    c_out: Tensor
    log_snr: Tensor
    """log SNR in float64; the coefficients have the dtype of `t`."""
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

    def target(self, x_0: Tensor) -> Tensor:
        """What the network's output should have been for the clean images `x_0`: (x_0 - c_skip x_t) / c_out."""
        return (x_0 - self.c_skip * self.x_t) / self.c_out

    def clip(self, limit: float, percentile: float | None = None) -> "Prediction":
        """The same with x_0 held to [-limit, limit]; eps, v and score follow.

        With `percentile` in (0, 1), an image whose |x_0| has this quantile beyond the limit is first scaled down to it,
        rather than cut off (dynamic thresholding, Saharia et al. 2022, section 2.3, arXiv:2205.11487).
        """
        x_0 = self.x_0
        if percentile is not None:
            extent = x_0.flatten(1).abs().float().quantile(percentile, dim=1).clamp(min=limit).to(x_0.dtype)
            x_0 = x_0 * (limit / extent).view(-1, 1, 1, 1)
        return replace(self, x_0=x_0.clamp(-limit, limit))

    def log_variance(self, s: Tensor, variance: str) -> Tensor:
        """log variance of p(x_s | x_t), `variance` being small, large or learned (see `Schedule.log_variance`).

        The decoder (s = 0) has the small one also where the others are large, for a better likelihood (FIXED_LARGE of
        improved-diffusion, and Ho et al.'s code).
        """
        fractions: dict[str, Tensor | float | None] = {"small": 0.0, "large": s > 0, "learned": self.variance}
        fraction = fractions[variance]
        assert fraction is not None, "checked at start-up"
        return self.schedule.log_variance(s, self.t, fraction)

    def chunk(self, num: int) -> Sequence["Prediction"]:
        """The predictions of `num` equal parts of the batch."""
        tensors = {name: value.chunk(num) for name, value in vars(self).items() if isinstance(value, Tensor)}
        parts: list[dict[str, Any]] = [{name: chunks[i] for name, chunks in tensors.items()} for i in range(num)]
        return [replace(self, **part) for part in parts]


class BaseDenoiser(nn.Module, ABC):
    """What samplers, likelihoods, metrics and figures see of a model."""

    schedule: Schedule
    """How much signal and noise there is at each time."""
    space: Space
    """What x_0 is."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of x_0."""
    num_classes: int | None
    """How many classes the model knows; None if it is unconditional."""
    null_class: bool
    """Whether a model with classes can also be asked without one."""
    learns_variance: bool
    """Whether the model also says how uncertain a reverse step is."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        """Denoise `x_t` [B, C, H, W] from the times `t` [B, 1, 1, 1], given what else is known of the images."""


class Denoiser(BaseDenoiser):
    """x_0 = c_skip x_t + c_out F(c_in x_t, c_noise(t), condition).

    Args:
        network: F.
        schedule: how much signal and noise there is at each time.
        parameterization: what the network's output means.
        space: what x_0 is; None means pixels.

    Raises:
        ValueError: if the parameterization cannot give x_0 at some time of the schedule.
    """

    def __init__(
        self, network: Network, schedule: Schedule, parameterization: Parameterization, space: Space | None = None
    ) -> None:
        super().__init__()
        self.schedule, self.network, self.parameterization = schedule, network, parameterization
        self.space = space or PixelSpace()
        self.image_shape, self.num_classes = network.image_shape, network.num_classes
        self.learns_variance, self.null_class = network.learn_variance, network.null_class
        end = torch.ones(1)
        if not all(c.isfinite().all() for c in parameterization(schedule.alpha(end), schedule.sigma(end))):
            raise ValueError(
                f"{type(parameterization).__name__} cannot give x_0 at t = 1 of {type(schedule).__name__}, where no "
                "signal is left: it divides by alpha = 0. Use parameterization=v, velocity, x0 or edm, or a schedule "
                "that keeps some signal (zero_terminal_snr=false)"
            )

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        alpha, sigma, log_snr = self.schedule.coefficients(t)
        c_skip, c_out, c_in = self.parameterization(alpha, sigma)
        output = self.network(c_in * x_t, self.schedule.c_noise(t).flatten(), condition).to(x_t.dtype)
        variance = None
        if self.learns_variance:
            output, variance = output.chunk(2, dim=1)
            variance = (variance + 1) / 2
        x_0 = c_skip * x_t + c_out * output
        return Prediction(self.schedule, t, x_t, x_0, output, alpha, sigma, c_skip, c_out, log_snr, variance)
