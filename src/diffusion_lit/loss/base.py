"""What training minimises."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.density import Density
from diffusion_lit.random import randn_like

__all__ = ["Loss"]


class Loss(nn.Module, ABC):
    """A loss per image; its mean over the batch is minimised.

    Args:
        density: at which times.
    """

    def __init__(self, density: Density) -> None:
        super().__init__()
        self.density = density

    def forward(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generator | None = None,
        augmentation: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the loss, each [B]: `loss` is what is minimised, `t` the time it was taken at.

        Args:
            denoiser: the model.
            x_0: clean images in [-1, 1], [B, C, H, W].
            label: classes [B], or None.
            generator: draws the times and the noise; on the device of `x_0`.
            augmentation: what the network is told of how `x_0` was augmented, [B, k], or None.
        """
        schedule = denoiser.schedule
        t = schedule.snap(self.density(x_0, schedule, generator))  # [B, 1, 1, 1]
        x_t = schedule.add_noise(x_0, randn_like(x_0, generator), t)
        terms = self.terms(denoiser, denoiser(x_t, t, label, augmentation), x_0, t)
        correction = self.density.correction(t.flatten())  # by the density that t was drawn from, before it changes
        self.density.record(t, terms["loss"])
        return {name: term * correction for name, term in terms.items()} | {"t": t.flatten()}

    @abstractmethod
    def terms(self, denoiser: Denoiser, p: Prediction, x_0: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The terms, each [B], where the model makes `p` of x_t at the times `t` [B, 1, 1, 1]."""

    def check(self, denoiser: Denoiser) -> None:
        """Raise a ValueError if `denoiser` cannot be trained with this loss."""
        self.density.check(denoiser.schedule)
