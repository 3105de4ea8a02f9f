"""How likely a model holds held-out images to be, as a figure."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.bound import require_bytes
from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.distributed.collective import gathered_objects, rank_and_size
from diffusion_lit.evaluation.image_set import ImageSet
from diffusion_lit.likelihood import ode_likelihood, variational_bound
from diffusion_lit.metrics import Figure
from diffusion_lit.picture.image import from_uint8
from diffusion_lit.random import ImageNoise
from diffusion_lit.terminal.progress import progress

__all__ = ["BitsPerDim", "Bound", "Likelihood"]


@dataclass
class Likelihood(ABC):
    """A figure in bits/dim, of a model and real images alone.

    Args:
        num_images: of how many of the real images, evenly spaced, since many sets are sorted by class; a ValueError
            under 2.
        batch_size: images at a time.
        seed: of the noise, which image i has from (seed, i).
    """

    num_images: int = 1000
    batch_size: int = 100
    seed: int = 0
    better = "lower"

    def __post_init__(self) -> None:
        if self.num_images < 2 or self.batch_size < 1:
            raise ValueError(
                f"bits/dim need num_images of at least 2 and batch_size of at least 1, got {self.num_images} and "
                f"{self.batch_size}"
            )

    def check(self, denoiser: BaseDenoiser) -> None:
        """Raise a ValueError if the model has no likelihood of bytes."""
        require_bytes(denoiser.space)

    def indices(self, count: int) -> list[int]:
        """Which of so many images it is of."""
        num = min(self.num_images, count)
        return [i * count // num for i in range(num)]

    @abstractmethod
    def parts(
        self, denoiser: BaseDenoiser, x_0: Tensor, noise: Callable[[], Tensor], condition: Condition
    ) -> dict[str, Tensor]:
        """The figures, each [B], by name."""

    def measure(self, denoiser: BaseDenoiser, images: ImageSet, device: torch.device | str) -> dict[str, Figure]:
        """The means over images, with standard errors; processes share the images, and all have the figures."""
        rank, size = rank_and_size()
        own = self.indices(len(images))[rank::size]
        found: dict[str, list[Tensor]] = {}
        with progress("likelihood", len(own), "images") as work:
            for first in range(0, len(own), self.batch_size):
                indices = own[first : first + self.batch_size]
                [batch] = images.batches(indices, self.batch_size)
                labels = images.labels(indices) if denoiser.num_classes is not None else None
                condition = UNCONDITIONAL if labels is None else Condition(labels.clamp(min=NO_CLASS).to(device))
                noise = ImageNoise(self.seed, indices, tuple(batch.shape[1:]), device)  # type: ignore[arg-type]
                for name, values in self.parts(denoiser, from_uint8(batch.to(device)), noise, condition).items():
                    found.setdefault(name, []).append(values.double().cpu())
                work.advance(len(indices))
        shares = gathered_objects({name: torch.cat(values) for name, values in found.items()})
        every = {name: torch.cat([share[name] for share in shares if name in share]) for name in shares[0]}
        return {n: Figure(float(v.mean()), float(v.std()) / math.sqrt(len(v))) for n, v in every.items()}


@dataclass
class BitsPerDim(Likelihood):
    """-log2 P of 8-bit images by the probability-flow ODE (see `ode_likelihood`).

    Args:
        rtol, atol: tolerances of the solver.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def parts(
        self, denoiser: BaseDenoiser, x_0: Tensor, noise: Callable[[], Tensor], condition: Condition
    ) -> dict[str, Tensor]:
        return {"bits_per_dim": ode_likelihood(denoiser, x_0, noise, condition, self.rtol, self.atol).bits_per_dim}


@dataclass
class Bound(Likelihood):
    """The variational bound and its terms (see `variational_bound`): prior, steps between, decoder.

    Args:
        num_steps: of the chain; None takes all of a discrete schedule.
        variance: small, large or learned.
    """

    num_steps: int | None = None
    variance: str = "small"

    def parts(
        self, denoiser: BaseDenoiser, x_0: Tensor, noise: Callable[[], Tensor], condition: Condition
    ) -> dict[str, Tensor]:
        bound = variational_bound(denoiser, x_0, noise, condition, self.num_steps, self.variance)
        return {
            "bound": bound.total,
            "bound_prior": bound.prior,
            "bound_steps": bound.terms[:, :-1].sum(1),
            "bound_decoder": bound.terms[:, -1],
        }
