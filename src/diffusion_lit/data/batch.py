"""Batches of stored images, with what was drawn to augment them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.condition import Condition
from diffusion_lit.random import fold_in

__all__ = ["ArrayImages", "AugmentedImages", "Batch", "Images", "already_batched"]


class Batch:
    """What a training step receives. Lightning moves it by `to`, and does not round its numbers to a run's precision.

    Not a dataclass, which Lightning would take apart.

    Args:
        images: uint8, or stored latents, [B, C, H, W]: not augmented yet.
        condition: what the model is given of each of them.
        indices: their numbers in the split.
        draws: what was drawn to augment each of them, float32 [B, k]; None if nothing is to be done to them.
    """

    def __init__(self, images: Tensor, condition: Condition, indices: list[int], draws: Tensor | None = None) -> None:
        self.images, self.condition, self.indices, self.draws = images, condition, indices, draws

    def __len__(self) -> int:
        return len(self.images)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """`function` of every tensor."""
        draws = None if self.draws is None else function(self.draws)
        return Batch(function(self.images), self.condition.apply(function), self.indices, draws)

    def to(self, device: torch.device) -> "Batch":
        return self.apply(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> "Batch":
        return self.apply(Tensor.pin_memory)


class Images(Protocol):
    """A set of images that can be fetched by index."""

    def __len__(self) -> int: ...

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]: ...


@dataclass(eq=False)
class ArrayImages:
    """Images held in memory, uint8 [N, C, H, W], and their labels, int64 [N]."""

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        return self.images[indices], None if self.labels is None else self.labels[indices]


@dataclass(eq=False)
class AugmentedImages(Dataset[Batch]):
    """What a DataLoader reads: images by (epoch, index), and draws, a function of (seed, epoch, index) alone."""

    images: Images
    seed: int
    augmentation: Augmentation | None

    def __getitems__(self, addresses: list[tuple[int, int]]) -> Batch:
        indices = [index for _, index in addresses]
        images, labels = self.images.fetch(indices)
        batch = Batch(images, Condition(labels), indices)
        if self.augmentation is not None and self.augmentation.num_draws > 0:
            draws = [self.augmentation.draw(fold_in(self.seed, "augmentation", *address)) for address in addresses]
            batch.draws = torch.stack(draws)
        return batch


def already_batched(batch: Any) -> Any:
    """The collate function of a dataset that fetches whole batches."""
    return batch
