"""Images that are evaluated, whether a model draws them or they are stored: each by its number, always the same."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.data.batch import Images
from diffusion_lit.distributed.collective import decided
from diffusion_lit.drawing import draw
from diffusion_lit.generate import Setup
from diffusion_lit.labels import Labels
from diffusion_lit.space import Space
from diffusion_lit.terminal.progress import progress

__all__ = ["DrawnImages", "ImageSet", "StoredImages"]

READ = 250  # images read at a time


class ImageSet(ABC):
    """Images by number, uint8 [C, H, W]."""

    asked = False
    """Whether the labels are what a model was asked for."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(
        self, indices: Sequence[int], batch_size: int, on_progress: Callable[[float], object] | None = None
    ) -> Iterator[Tensor]:
        """The images of these numbers in their order, uint8 [B, C, H, W].

        Args:
            indices: which images.
            batch_size: at most so many at a time.
            on_progress: called with how many more images are done, also in parts.
        """

    @abstractmethod
    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """Their classes, int64 [B], -1 where one is not known; None without classes."""

    @property
    @abstractmethod
    def content(self) -> str:
        """Changes with any of the images: a SHA-256, of the images or of all that decides them."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What somebody needs to know to have the same images, plain values."""


@dataclass(frozen=True)
class DrawnImages(ImageSet):
    """The images `0 .. num_samples - 1` of a model.

    Args:
        setup: the model, and how to sample.
        drawn_with: all that decides what image i is, plain values.
        seed: of the noise.
        num_samples: how many.
        by_index: the class of each; None without classes.
    """

    setup: Setup
    drawn_with: Mapping[str, Any]
    seed: int
    num_samples: int
    by_index: Labels | None
    asked = True

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        denoiser = self.setup.denoiser
        nothing = torch.zeros(1, *denoiser.image_shape, device=self.setup.device)
        channels, height, width = denoiser.space.decode(nothing).shape[1:]  # latents are smaller than images
        return channels, height, width

    def __len__(self) -> int:
        return self.num_samples

    def batches(
        self, indices: Sequence[int], batch_size: int, on_progress: Callable[[float], object] | None = None
    ) -> Iterator[Tensor]:
        def on_step(s: Tensor, x_s: Tensor) -> None:
            if on_progress is not None:
                on_progress(len(x_s) / self.setup.num_steps)

        for _, images in draw(self.setup, indices, self.by_index, self.seed, batch_size, on_step=on_step):
            yield images

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        return None if self.by_index is None else torch.tensor([self.by_index[i] for i in indices])

    @property
    def content(self) -> str:
        return hashlib.sha256(json.dumps(self.drawn_with, sort_keys=True).encode()).hexdigest()

    @property
    def protocol(self) -> dict[str, Any]:
        return {**self.drawn_with, "num_steps": self.setup.num_steps, "step": self.setup.step}


@dataclass(frozen=True)
class StoredImages(ImageSet):
    """Images of a data set, or of files.

    Args:
        images: what they are fetched from.
        named: what they are, for the protocol, plain values.
        space: of what is stored; None where uint8 images are.
        device: where they are decoded.
    """

    images: Images
    named: Mapping[str, Any] = field(default_factory=dict)
    space: Space | None = None
    device: torch.device | str = "cpu"

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = next(self.batches([0], 1))[0].shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, indices: Sequence[int], batch_size: int, on_progress: Callable[[float], object] | None = None
    ) -> Iterator[Tensor]:
        for first in range(0, len(indices), batch_size):
            images, _ = self.images.fetch(list(indices[first : first + batch_size]))
            yield self.decoded(images)
            if on_progress is not None:
                on_progress(len(images))

    def decoded(self, stored: Tensor) -> Tensor:
        if self.space is None or self.space.fingerprint is None:
            return stored
        with torch.inference_mode():
            return self.space.images(stored.to(self.device)).cpu()

    def labelled(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All images, and their classes, a few at a time."""
        for first in range(0, len(self), READ):
            indices = range(first, min(first + READ, len(self)))
            yield next(self.batches(indices, READ)), self.labels(indices)

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        return None if (every := self.every_label) is None else every[list(indices)]

    @cached_property
    def every_label(self) -> Tensor | None:
        return self.read_once[1]

    @cached_property
    def content(self) -> str:
        return self.read_once[0]

    @cached_property
    def read_once(self) -> tuple[str, Tensor | None]:
        """The checksum of what is stored, image by image with its class, and of what decodes it, and the classes.

        The first process alone reads it, and all have it: all must ask for it together, the first time.
        """
        return decided(self.read)

    def read(self) -> tuple[str, Tensor | None]:
        digest, classes = hashlib.sha256(), []
        with progress("reading images", len(self), "images", delay=2.0) as work:
            for first in range(0, len(self), READ):
                images, labels = self.images.fetch(list(range(first, min(first + READ, len(self)))))
                digest.update(f"{images.dtype} {tuple(images.shape[1:])}".encode() if first == 0 else b"")
                digest.update(images.contiguous().numpy().tobytes())
                digest.update(b"" if labels is None else labels.numpy().tobytes())
                classes += [] if labels is None else [labels]
                work.advance(len(images))
        if self.space is not None and self.space.fingerprint is not None:
            digest.update(json.dumps(self.space.fingerprint, sort_keys=True).encode())
        return digest.hexdigest(), torch.cat(classes) if classes else None

    @property
    def protocol(self) -> dict[str, Any]:
        return {**self.named, "count": len(self), "content": self.content}
