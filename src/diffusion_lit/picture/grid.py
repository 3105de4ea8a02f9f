"""One picture of many images."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lit.picture.image import visible
from diffusion_lit.picture.title_font import font_for, one_line

__all__ = ["MAX_SHOWN", "choose_columns", "image_grid", "picture_of", "titles_of"]

MAX_SHOWN = 400
"""Images in a grid: more are too small on a screen to be seen."""
MIN_TILE = 48  # pixels: smaller images are magnified in a grid, so that a person can see them
MARGIN = 2  # pixels between images
HEADER = 16  # pixels
LETTER = HEADER - 5  # pixels
SHADE = 32
LONGEST = 2.5  # times the side of a square: a grid with a column for each class may be as wide


def choose_columns(labels: Sequence[int] | None, num_images: int, height: int = 1, width: int = 1) -> int:
    """So many columns that a grid of images of that height and width is about square.

    Where classes come in turn, it is a multiple of their number if one is near that.
    """
    square = min(num_images, math.isqrt((num_images * height - 1) // width) + 1)
    turn = None if labels is None else period_of(labels)
    if turn is None:
        return square
    columns = max(1, round(square / turn)) * turn
    return columns if columns <= LONGEST * square else square


def period_of(labels: Sequence[int]) -> int | None:
    """After how many labels they repeat; None where they do not, twice at least."""
    periods = range(1, len(labels) // 2 + 1)
    return next((k for k in periods if all(a == b for a, b in zip(labels, labels[k:], strict=False))), None)


def titles_of(labels: Sequence[int] | None, columns: int, names: Sequence[str] | None) -> list[str] | None:
    """The names, or else the numbers, of the classes: of each column, or where columns have several, of each image."""
    if labels is None:
        return None
    each = [str(label) if names is None else names[label] for label in labels]
    alike = all(label == labels[i % columns] for i, label in enumerate(labels))
    return each[:columns] if alike else each


def picture_of(
    images: Tensor,
    labels: Sequence[int] | None,
    names: Sequence[str] | None,
    columns: int | None = None,
    caption: str | None = None,
) -> Tensor:
    """Images, uint8 [N, C, H, W], in a grid with their classes above, and as many columns as suits them.

    Args:
        images, labels: and the class of each; None where there are no classes.
        names: of all classes; None has their numbers.
        columns: how many in a row; None chooses.
        caption: text below.
    """
    columns = columns or choose_columns(labels, len(images), *images.shape[2:])
    return image_grid(images, columns, titles_of(labels, columns, names), caption)


def image_grid(images: Tensor, columns: int, titles: Sequence[str] | None = None, caption: str | None = None) -> Tensor:
    """One picture of many, row by row, small images magnified by repeating pixels.

    Args:
        images: uint8 [N, C, H, W], shown as `visible` says.
        columns: how many in a row.
        titles: text above each column, or, if there is one for each image, above that; None leaves no room for it.
        caption: text below, on as many lines as it takes.

    Returns:
        uint8 [1 or 3, height, columns * tile], with a margin around each tile.
    """
    scale = -(-MIN_TILE // math.isqrt(images.shape[-1] * images.shape[-2]))
    images = visible(images.repeat_interleave(scale, -1).repeat_interleave(scale, -2))
    num_images, channels, height, width = images.shape
    columns = min(columns, num_images)
    full_width, pitch = columns * (width + MARGIN) + MARGIN, width + MARGIN
    parts = [] if titles is None or len(titles) > columns else [draw_titles(titles[:columns], pitch, full_width)]
    for first in range(0, num_images, columns):
        if titles is not None and len(titles) > columns:
            parts.append(draw_titles(titles[first : first + columns], pitch, full_width))
        row = images.new_full((channels, height + MARGIN, full_width), SHADE)
        for i, image in enumerate(images[first : first + columns]):
            row[:, MARGIN:, MARGIN + i * pitch : MARGIN + i * pitch + width] = image
        parts.append(row)
    parts.append(images.new_full((1, MARGIN, full_width), SHADE))
    lines = [] if caption is None else wrap(caption, full_width)
    parts += [draw_titles([line], full_width, full_width) for line in lines]
    return torch.cat([part.to(images.device).expand(channels, -1, -1) for part in parts], dim=1)


def draw_titles(titles: Sequence[str], pitch: int, width: int) -> Tensor:
    """A line of text, each title centred on its column and cut to it, uint8 [1, HEADER, width]."""
    picture = Image.new("L", (width, HEADER), SHADE)
    draw = ImageDraw.Draw(picture)
    for i, title in enumerate(map(one_line, titles)):
        font, short = font_for(title, LETTER), title
        while len(short) > 1 and draw.textlength(short, font) > pitch:
            kept = short.removesuffix("...")[:-1]
            short = kept and f"{kept}..."  # nothing, where not even one letter fits: it would be another class's name
        draw.text(((i + 0.5) * pitch + 1, HEADER / 2), short, 255, font, anchor="mm")
    return torch.from_numpy(np.array(picture))[None]


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words, none wider than `width` pixels where a word is not."""
    font, lines = font_for(text, LETTER), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width or not lines[-1] else [*lines, word]
    return lines
