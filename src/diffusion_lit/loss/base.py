"""What training minimises."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density

__all__ = ["Loss"]


class Loss(nn.Module, ABC):
    """A loss per image; its mean over the batch is minimised.

    Args:
        density: at which times.
    """

    def __init__(self, density: Density) -> None:
        super().__init__()
        self.density = density

    @abstractmethod
    def forward(
        self, denoiser: Denoiser, x_0: Tensor, label: Tensor | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        """The terms of the loss, each [B]: `loss` is what is minimised, `t` the time it was taken at.

        Args:
            denoiser: the model.
            x_0: clean images in [-1, 1], [B, C, H, W].
            label: classes [B], or None.
            generator: draws the times and the noise; on the device of `x_0`.
        """

    def check(self, denoiser: Denoiser) -> None:
        """Raise a ValueError if `denoiser` cannot be trained with this loss."""
        self.density.check(denoiser.schedule)
