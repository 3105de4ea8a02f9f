"""Pixels: between bytes and the model's range, and onto the disk."""

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.files import replacing

__all__ = [
    *("as_array", "file_kind", "from_uint8", "read_image", "save_figure", "save_image", "save_npz", "seen_as"),
    *("to_uint8", "visible"),
]

CHECKS = (102, 153)  # shades of the board that shows through
SQUARES = 8  # of the board, along the shorter side of an image
MAX_PNG = 4
"""Channels that a PNG has at most: colour and alpha."""


def from_uint8(images: Tensor) -> Tensor:
    """Bytes 0..255 to float32 in [-1, 1], the range that models are trained in."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """The inverse of `from_uint8`: rounds, and cuts off what lies outside [-1, 1]."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def as_array(image: Tensor) -> np.ndarray:
    """One uint8 image [C, H, W] as Pillow takes it, and matplotlib without alpha: [H, W] if grey, else [H, W, C]."""
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def visible(images: Tensor) -> Tensor:
    """Images uint8 [B, C, H, W] as a person can see them, C = 1 or 3: see `seen_as`."""
    channels, height, width = images.shape[1:]
    if channels not in (2, 4):
        return images[:, : 3 if channels > 4 else channels]
    size = max(1, min(height, width) // SQUARES)
    rows, columns = (torch.arange(side, device=images.device) // size for side in (height, width))
    board = torch.where((rows[:, None] + columns) % 2 == 0, *CHECKS)
    alpha = images[:, -1:].float() / 255
    return (images[:, :-1] * alpha + board * (1 - alpha)).round().to(torch.uint8)


def seen_as(channels: int) -> str:
    """How `visible` shows images of so many channels, in words; empty where it shows them as they are."""
    if channels in (1, 3):
        return ""
    return "alpha over a checkerboard" if channels <= MAX_PNG else f"the first 3 of {channels} channels"


def file_kind(channels: int) -> str:
    """What single images of so many channels are written as, without loss: `png`, or `npy` where a PNG has too few."""
    return "png" if channels <= MAX_PNG else "npy"


def save_image(image: Tensor, path: Path, flushed: bool = True) -> None:
    """Write one uint8 image [C, H, W] as PNG, or where `path` ends in `.npy` as an array [H, W, C].

    `flushed` is explained in `replacement`.
    """
    with replacing(path, flushed) as file:
        if path.suffix == ".npy":
            np.save(file, np.ascontiguousarray(as_array(image)), allow_pickle=False)
        else:
            Image.fromarray(as_array(image)).save(file, "png")


def read_image(path: Path) -> Tensor:
    """The uint8 image [C, H, W] that `save_image` has written."""
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False)).permute(2, 0, 1)
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def save_figure(figure: Any, path: Path) -> None:
    """Write one of matplotlib's figures as PNG."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def save_npz(images: Tensor | Collection[Tensor], labels: Sequence[int] | None, path: Path) -> None:
    """Write images as ADM's evaluation does: `arr_0` uint8 [N, H, W, C], `arr_1` int64 labels (arXiv:2105.05233).

    Args:
        images: uint8 [N, C, H, W], or N images [C, H, W] that are read one by one and never together in memory.
        labels: their classes, or None.
        path: the file, whole or not there.
    """
    channels, height, width = next(iter(images)).shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), height, width, channels)}
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as array:
            np.lib.format.write_array_header_1_0(array, header)
            for image in images:
                array.write(image.cpu().permute(1, 2, 0).contiguous().numpy().tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w", force_zip64=True) as array:
                np.lib.format.write_array(array, np.asarray(labels, dtype=np.int64))
