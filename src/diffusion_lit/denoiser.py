"""The network, the schedule and the parameterization, joined: noisy image in, estimate of the clean one out."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diffusion_lit.parameterization import Coefficients, Parameterization
from diffusion_lit.schedule import Schedule

__all__ = ["Denoiser", "GuidedDenoiser", "Prediction"]


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

    def clip(self, limit: float) -> "Prediction":
        """The same with x_0 held to [-limit, limit]; eps, v and score follow."""
        return replace(self, x_0=self.x_0.clamp(-limit, limit))


class Denoiser(nn.Module):
    """x_0 = c_skip x_t + c_out F(c_in x_t, c_noise(t), label).

    Args:
        network: (image [B, C, H, W], c_noise [B], label [B] or None) -> [B, C, H, W].
        schedule: how much signal and noise there is at each time.
        parameterization: what the network's output means.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, parameterization: Parameterization) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization

    @property
    def num_classes(self) -> int | None:
        """How many classes the network knows, its null label not counted; None if it is unconditional."""
        return getattr(self.network, "num_classes", None)

    @property
    def null_label(self) -> int:
        """The label that means no class: the one after the last."""
        if self.num_classes is None:
            raise ValueError("an unconditional model has no labels; use a model with num_classes")
        return self.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the network was made for."""
        return (self.network.image_channels, self.network.resolution, self.network.resolution)  # type: ignore[return-value]

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Denoise `x_t` [B, C, H, W] from the times `t` [B, 1, 1, 1] given the classes `label` [B], or None."""
        c_skip, c_out, c_in = self.coefficients(t)
        output = self.network(c_in * x_t, self.schedule.c_noise(t).flatten(), label).to(x_t.dtype)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Prediction(c_skip * x_t + c_out * output, x_t, alpha, sigma, output)

    def coefficients(self, t: Tensor) -> Coefficients:
        """c_skip, c_out and c_in at the times `t`, each in its shape."""
        return self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))

    def target(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network's output should be: (x_0 - c_skip x_t) / c_out."""
        c_skip, c_out, _ = self.coefficients(t)
        return (x_0 - c_skip * x_t) / c_out


class GuidedDenoiser(nn.Module):
    """Classifier-free guidance in one batched forward (Ho & Salimans 2022, eq. 6, arXiv:2207.12598).

        x_0 = x_0(null) + guidance (x_0(label) - x_0(null))

    which is the same combination of eps, v and score, since each is linear in x_0. 1 is the plain conditional
    model, 0 the unconditional one; the paper's w is `guidance` - 1.

    Args:
        denoiser: a class-conditional model that was trained with its label sometimes dropped.
        guidance: the scale.

    Raises:
        ValueError: if `guidance` is negative or the model has no classes.
    """

    def __init__(self, denoiser: Denoiser, guidance: float) -> None:
        super().__init__()
        if guidance < 0:
            raise ValueError(f"guidance must not be negative, got {guidance}; 1 is no guidance, 1.5 to 4 is usual")
        if denoiser.num_classes is None:
            raise ValueError(
                f"guidance={guidance} needs a class-conditional model, this one has no classes; use guidance=1"
            )
        self.denoiser = denoiser
        self.guidance = guidance
        self.null_label = denoiser.null_label

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """As `Denoiser`; `label` is required.

        Raises:
            ValueError: if `label` is None.
        """
        if label is None:
            raise ValueError("guidance pushes towards a class: give labels, or use guidance=1 without them")
        null = torch.full_like(label, self.null_label)
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([label, null]))
        x_0, x_0_null = both.x_0.chunk(2)
        output, output_null = both.output.chunk(2)
        return Prediction(
            x_0=torch.lerp(x_0_null, x_0, self.guidance),
            x_t=x_t,
            alpha=self.schedule.alpha(t),
            sigma=self.schedule.sigma(t),
            output=torch.lerp(output_null, output, self.guidance),
        )
