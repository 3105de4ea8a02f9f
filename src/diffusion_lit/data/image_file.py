"""One image file, of any format, size and colour mode, as the model takes it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["UNREADABLE", "read_image", "unreadable"]

UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)  # what Pillow raises


def read_image(path: Path, resolution: int, channels: int) -> Tensor:
    """One file as uint8 [channels, resolution, resolution]: upright, scaled to cover the square, cut at the centre.

    Transparent pixels become white; 16-bit grey keeps its high byte; downscaling is antialiased (bicubic).

    Raises:
        ValueError: if the file is not an image that can be read; the message names it.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # convert() would cut everything above 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no agreed range; convert the file first")
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB" if channels == 3 else "L")
            image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC)
    except UNREADABLE as error:
        raise ValueError(unreadable([path], error)) from error
    return torch.from_numpy(np.array(image).reshape(resolution, resolution, channels)).permute(2, 0, 1)


def unreadable(paths: list[Path], error: Exception) -> str:
    """The message that names files that could not be read, ten at most."""
    what = f"{len(paths)} files" if len(paths) > 1 else "this file"
    listed = "".join(f"\n  {path}" for path in paths[:10]) + ("\n  ..." if len(paths) > 10 else "")
    return f"cannot read {what} as an image; repair or remove it:{listed}\n({type(error).__name__}: {error})"
