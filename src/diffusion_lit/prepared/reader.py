"""The images of a prepared set, as training reads them."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.prepared.shard import Shard, ShardInfo
from diffusion_lit.source.base import UNLABELLED

__all__ = ["REMEDY", "PreparedImages"]

REMEDY = "copy it again, or prepare the set again"


@dataclass(eq=False)
class PreparedImages:
    """A split of a prepared set: shards that are mapped into memory when they are first read.

    Args:
        find: where a shard is, on this machine.
        max_open: shards that are kept mapped at a time; None keeps all.
    """

    manifest: Manifest
    split: str
    find: Callable[[ShardInfo], Path]
    max_open: int | None = None

    def __post_init__(self) -> None:
        self.shards = self.manifest.splits[self.split].shards
        self.ends = np.cumsum([shard.count for shard in self.shards])
        self.shard = lru_cache(self.max_open)(self.open)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __reduce__(self) -> tuple[Any, ...]:  # a worker process maps shards itself
        return PreparedImages, (self.manifest, self.split, self.find, self.max_open)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        """Images uint8, or latents float16, [B, C, H, W], and their classes."""
        wanted = np.asarray(indices)
        homes = np.searchsorted(self.ends, wanted, side="right")
        shape = (len(wanted), *self.manifest.shape)
        images = np.empty(shape, np.uint8 if self.manifest.latents is None else np.float16)
        labels = np.empty(len(wanted), np.int64)
        for home in np.unique(homes):
            [places] = np.nonzero(homes == home)
            shard = self.shard(int(home))
            inside = wanted[places] - (self.ends[home] - self.shards[home].count)
            labels[places] = known = shard.labels(inside)
            names = self.manifest.class_names
            if names and not ((known >= UNLABELLED) & (known < len(names))).all():
                file = self.shards[home].file
                raise ValueError(f"shard {file} is damaged: it has classes that the manifest does not have; {REMEDY}")
            if self.manifest.encoding == "raw":
                images[places] = shard.raw(inside).view(images.dtype).reshape(-1, *shape[1:])
            else:
                for place, index in zip(places, inside, strict=True):
                    images[place] = self.decode(shard.encoded(int(index)), int(home))
        return torch.from_numpy(images), torch.from_numpy(labels) if self.manifest.class_names else None

    def decode(self, file: np.ndarray, home: int) -> np.ndarray:
        """An encoded image as [C, H, W]."""
        try:
            with Image.open(io.BytesIO(file.tobytes()), formats=(self.manifest.encoding,)) as image:
                channels, height, width = self.manifest.shape
                if image.size != (width, height) or len(image.getbands()) != channels:
                    raise ValueError(f"an image of {image.size} pixels and {len(image.getbands())} channels")
                pixels = np.asarray(image)
        except MemoryError:
            raise
        except Exception as error:  # what is damaged raises anything
            raise ValueError(f"shard {self.shards[home].file} is damaged ({error}); {REMEDY}") from error
        return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)

    def open(self, number: int) -> Shard:
        info = self.shards[number]
        path = self.find(info)
        try:
            return Shard(path, info, self.manifest.item_bytes)
        except FileNotFoundError:  # another process may have made room in the cache in between
            path = self.find(info)
        return Shard(path, info, self.manifest.item_bytes)
