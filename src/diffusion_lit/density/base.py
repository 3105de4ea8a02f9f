"""At which times the loss is taken."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor

__all__ = ["Density"]


class Density(ABC):
    """A distribution of training times in (0, 1]."""

    @abstractmethod
    def __call__(self, x_0: Tensor, generator: Generator | None = None) -> Tensor:
        """One time per image of `x_0` [B, C, H, W], as [B, 1, 1, 1] in its dtype and on its device."""
