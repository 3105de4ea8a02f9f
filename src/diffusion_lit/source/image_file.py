"""One image file, of any format, size and colour mode, as the model takes it."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["FILTERS", "FITS", "MAX_PIXELS", "UNREADABLE", "read_image", "to_square", "unreadable"]

UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)  # what Pillow raises
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
FITS = ("center_crop", "resize")
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # Pillow runs Ghostscript for another
MAX_PIXELS = 100_000_000


def read_image(
    file: Path | BinaryIO,
    resolution: int,
    channels: int,
    fit: str = "center_crop",
    filter: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Tensor:
    """One file as uint8 [channels, resolution, resolution].

    Args:
        file: its path, or itself, opened.
        resolution, channels, fit, filter: as `to_square`.
        max_pixels: a file that says it has more is not decoded: a small one can claim any number.
        name: for messages, in place of the path.

    Raises:
        ValueError: if the file is not an image that can be read; the message names it.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels are over the limit of {max_pixels}")
            return to_square(image, resolution, channels, fit, filter)
    except UNREADABLE as error:
        raise ValueError(unreadable([name or file], error)) from error


def to_square(
    image: Image.Image, resolution: int, channels: int, fit: str = "center_crop", filter: str = "bicubic"
) -> Tensor:
    """An image as uint8 [channels, resolution, resolution], upright.

    Transparent pixels become white; 16-bit grey keeps its high byte; shrinking is antialiased.

    Args:
        image: in any mode.
        resolution: height and width.
        channels: 1 for grey, 3 for colour.
        fit: `center_crop` scales the image to cover the square and cuts it at the centre; `resize` squeezes it into it.
        filter: `lanczos`, `bicubic` or `box`.

    Raises:
        ValueError: if the image has pixels of 32 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would cut everything above 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no agreed range; convert the file first")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB" if channels == 3 else "L")
    square, resample = (resolution, resolution), FILTERS[filter]
    image = ImageOps.fit(image, square, resample) if fit == "center_crop" else image.resize(square, resample)
    return torch.from_numpy(np.array(image).reshape(resolution, resolution, channels)).permute(2, 0, 1)


def unreadable(files: list[Path] | list[Path | BinaryIO | str], error: Exception) -> str:
    """The message that names files that could not be read, ten at most."""
    what = f"{len(files)} files" if len(files) > 1 else "this file"
    listed = "".join(f"\n  {file}" for file in files[:10]) + ("\n  ..." if len(files) > 10 else "")
    return f"cannot read {what} as an image; repair or remove it:{listed}\n({type(error).__name__}: {error})"
