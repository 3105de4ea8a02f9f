"""At which times the loss is taken."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from diffusion_lit.schedule import Schedule


class Density(nn.Module, ABC):
    """A distribution of training times in (0, 1]."""

    place: tuple[int, int] = (0, 1)
    """Which of a step's batches on this process comes next in training, and of how many."""

    @abstractmethod
    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        """One time per image of `x_0` [B, C, H, W], as [B, 1, 1, 1] in its dtype and on its device."""

    def check(self, schedule: Schedule) -> None:
        """Raise a ValueError if the density cannot be used with `schedule`."""

    def correction(self, t: Tensor) -> Tensor | float:
        """Importance weight at `t`: target density over sampling density."""
        return 1.0

    def record(self, t: Tensor, loss: Tensor) -> None:
        """Record the losses [B] at the times [B], where the density depends on them."""
