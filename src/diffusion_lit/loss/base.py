"""What training minimises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.density import Density
from diffusion_lit.random import randn_like
from diffusion_lit.schedule import Schedule


@dataclass(frozen=True)
class LossTerms:
    """A loss of each image of a batch, [B]."""

    loss: Tensor
    """What is minimised."""
    t: Tensor
    """The time it was taken at."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What the loss is made of, by name, where there is more than one part."""


class Loss(nn.Module, ABC):
    """A loss per image, at times that `density` draws; its mean over the batch is minimised."""

    def __init__(self, density: Density) -> None:
        super().__init__()
        self.density = density

    def forward(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        condition: Condition = UNCONDITIONAL,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> LossTerms:
        """The loss of each image at a time and with noise that are drawn for it.

        Args:
            x_0: clean images in [-1, 1], [B, C, H, W].
            generator: draws times and noise, on the device of `x_0`; one for each image where its draws must not depend
                on its batch.
        """
        schedule = denoiser.schedule
        if isinstance(generator, Sequence):
            draws = [self.draw(schedule, x_0[i : i + 1], own) for i, own in enumerate(generator)]
            t, eps = (torch.cat(parts) for parts in zip(*draws, strict=True))
        else:
            t, eps = self.draw(schedule, x_0, generator)
        terms = self.terms(denoiser(schedule.add_noise(x_0, eps, t), t, condition), x_0)
        t = t.flatten()
        correction = self.density.correction(t)  # by the density that t was drawn from, before it changes
        self.density.record(t, terms["loss"])
        terms = {name: term * correction for name, term in terms.items()}
        return LossTerms(terms.pop("loss"), t, terms)

    def draw(self, schedule: Schedule, x_0: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """A time for each image, [B, 1, 1, 1], and noise like `x_0`."""
        t = schedule.snap(self.density(x_0, schedule, generator))
        return t, randn_like(x_0, generator)

    @abstractmethod
    def terms(self, p: Prediction, x_0: Tensor) -> dict[str, Tensor]:
        """The `loss` of the prediction `p`, and what it is made of, by name, each [B]."""

    def check(self, denoiser: Denoiser) -> None:
        """Raise a ValueError if `denoiser` cannot be trained with this loss."""
        self.density.check(denoiser.schedule)
