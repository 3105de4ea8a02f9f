"""An image as it is stored, on its way into a batch."""

import io
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lit.source.image_file import Reading

__all__ = ["Sample", "decode"]


class Sample(NamedTuple):
    """An image as it is stored: a file's bytes, its class or None, and what to call it in a message."""

    image: bytes
    label: int | None
    name: str


def decode(samples: list[Sample], reading: Reading) -> tuple[Tensor, Tensor | None]:
    """Images uint8 [B, C, H, W] and labels int64 [B], or None if there are none.

    Raises:
        ValueError: if one is not an image; the message names it.
    """
    images = [reading.read(io.BytesIO(sample.image), sample.name) for sample in samples]
    labels = [sample.label for sample in samples if sample.label is not None]
    return torch.stack(images), torch.tensor(labels) if labels else None
