"""Examples of what a dataset holds."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.data import ImageDataModule
from diffusion_lit.picture.image import as_array, save_figure, visible
from diffusion_lit.picture.title_font import font_file, one_line

__all__ = ["choose_examples", "draw_contact_sheet"]

FONT_SIZE = 9
LOOKED_AT = 2000
"""Images among which examples of each class are looked for, where that takes reading them."""


def choose_examples(data: ImageDataModule, split: str, rows: int, columns: int) -> dict[str, Tensor]:
    """Images as they are stored, spread evenly over a split: at most `rows`, one for each class or of any.

    By the name of the row, with the class's number of images if it is known: at most `columns` images [n, C, H, W].
    Classes without images in the split have no row.
    """
    images, names = data.splits[split], data.class_names or []
    labels: Tensor | None = getattr(images, "labels", None)
    stored: Tensor | None = None
    if labels is None and names:  # what a stream has fetched once it does not fetch again
        stored, labels = images.fetch(spread(torch.arange(len(images)), LOOKED_AT).tolist())

    def pick(chosen: Tensor) -> Tensor:
        return images.fetch(chosen.tolist())[0] if stored is None else stored[chosen]

    there = None if labels is None else torch.bincount(labels[labels >= 0]).nonzero().flatten()
    classes = spread(there, rows).tolist() if names and there is not None else []
    if not classes:
        chosen = spread(torch.arange(len(images if stored is None else stored)), rows * columns)
        examples = pick(chosen)
        return {f"{int(chosen[i])} ...": examples[i : i + columns] for i in range(0, len(chosen), columns)}
    counts = data.class_counts(split)
    rows_by_name = {}
    for label in classes:
        [found] = torch.nonzero(labels == label, as_tuple=True)
        name = names[label] if counts is None else f"{names[label]} ({counts[label]})"
        rows_by_name[name] = pick(spread(found, columns))
    return rows_by_name


def spread(indices: Tensor, count: int) -> Tensor:
    """At most `count` of the indices, evenly spread."""
    if len(indices) <= count:
        return indices
    return indices[torch.linspace(0, len(indices) - 1, count).round().long()]


def draw_contact_sheet(rows: dict[str, Tensor], path: Path) -> None:
    """Write a PNG with a row of images, uint8 [n, C, H, W], for each name, shown as `visible` says."""
    from matplotlib.figure import Figure  # of the whole of matplotlib, what needs no display
    from matplotlib.font_manager import FontProperties

    columns = max(map(len, rows.values()))
    height, width = next(iter(rows.values())).shape[2:]
    side = 0.85 / math.sqrt(height * width)  # inches of a pixel
    figure = Figure(figsize=(side * width * columns + 2, side * height * len(rows) + 0.2), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, images) in zip(grid, zip(map(one_line, rows), rows.values(), strict=True), strict=True):
        for axis, image in zip(axes, visible(images), strict=False):
            axis.imshow(as_array(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
        font = FontProperties(fname=font_file(name), size=FONT_SIZE)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", font=font, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # which `font_file` says
        save_figure(figure, path)
