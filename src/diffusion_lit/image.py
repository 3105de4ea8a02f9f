"""Pixels: between bytes and the model's range, and onto the disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_lit.files import replacing

__all__ = ["as_array", "column_titles", "from_uint8", "image_grid", "save_figure", "save_image", "save_npz", "to_uint8"]

MIN_TILE = 48  # pixels: smaller images are magnified in a grid, so that a person can see them
HEADER = 16  # pixels
SHADE = 32


def from_uint8(images: Tensor) -> Tensor:
    """Bytes 0..255 to float32 in [-1, 1], the range that models are trained in."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """The inverse of `from_uint8`: rounds, and cuts off what lies outside [-1, 1]."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def image_grid(images: Tensor, columns: int, titles: Sequence[str] | None = None) -> Tensor:
    """One picture of many, row by row, small images magnified by repeating pixels.

    Args:
        images: uint8 [N, C, H, W].
        columns: how many in a row.
        titles: text above each column; None leaves no room for it.

    Returns:
        uint8 [C, header + rows * tile, columns * tile], with a margin around each tile.
    """
    scale = -(-MIN_TILE // images.shape[-1])
    images = images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    margin = 2
    num_images, channels, height, width = images.shape
    columns = min(columns, num_images)
    rows = -(-num_images // columns)
    grid = images.new_full((channels, rows * (height + margin) + margin, columns * (width + margin) + margin), SHADE)
    for i, image in enumerate(images):
        top, left = margin + i // columns * (height + margin), margin + i % columns * (width + margin)
        grid[:, top : top + height, left : left + width] = image
    if titles is None:
        return grid
    header = draw_titles(titles[:columns], width + margin, grid.shape[-1]).to(grid.device)
    return torch.cat([header.expand(channels, -1, -1), grid], dim=1)


def draw_titles(titles: Sequence[str], pitch: int, width: int) -> Tensor:
    """A line of text, each title centred on its column and cut to it, uint8 [1, HEADER, width]."""
    picture = Image.new("L", (width, HEADER), SHADE)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(HEADER - 4)
    for i, title in enumerate(titles):
        short = title
        while len(short) > 1 and draw.textlength(short, font) > pitch:
            short = short.removesuffix("...")[:-1] + "..."
        draw.text(((i + 0.5) * pitch + 1, HEADER / 2), short, 255, font, anchor="mm")
    return torch.from_numpy(np.array(picture))[None]


def column_titles(labels: Sequence[int] | None, columns: int, names: Sequence[str] | None) -> list[str] | None:
    """The name, or else the number, of the class in each column; None where columns do not have a class each."""
    if labels is None or any(label != labels[i % columns] for i, label in enumerate(labels)):
        return None
    return [str(label) if names is None else names[label] for label in labels[:columns]]


def as_array(image: Tensor) -> np.ndarray:
    """One uint8 image [C, H, W] as Pillow and matplotlib take it: [H, W] if grey, [H, W, 3] in colour."""
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def save_image(image: Tensor, path: Path) -> None:
    """Write one uint8 image [C, H, W], C = 1 or 3, as PNG."""
    with replacing(path) as file:
        Image.fromarray(as_array(image)).save(file, "png")


def save_figure(figure: Any, path: Path) -> None:
    """Write one of matplotlib's figures as PNG."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def save_npz(images: Tensor, labels: Sequence[int] | None, path: Path) -> None:
    """Write images uint8 [N, C, H, W] as ADM's evaluation does: `arr_0` uint8 [N, H, W, C], `arr_1` int64 labels."""
    arrays = [images.cpu().permute(0, 2, 3, 1).numpy()]
    if labels is not None:
        arrays.append(np.asarray(labels, dtype=np.int64))
    with replacing(path) as file:
        np.savez(file, *arrays)
