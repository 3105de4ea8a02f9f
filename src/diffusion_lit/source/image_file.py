"""One image file, of any format, size and colour mode, as the model takes it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor

from diffusion_lit.resolution import height_and_width
from diffusion_lit.source.bands import Bands, open_bands
from diffusion_lit.source.orientation import upright, upright_size

__all__ = ["FILTERS", "FITS", "Reading", "Sample", "decode", "is_image", "unreadable"]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
FITS = ("center_crop", "resize")
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # Ghostscript is run for another
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What a picture becomes, by its number of channels; of more, a file must have as many itself."""
PILLOW_LIMIT = 178_956_970


@dataclass(frozen=True)
class Reading:
    """How image files become uint8 [channels, height, width].

    Images are turned upright, transparent pixels become white unless there is a channel for alpha, grey of more than 8
    bits keeps its highest 8, and shrinking is antialiased, with colours weighted by alpha. An animation is its first
    frame. Arrays (see `open_bands`) are only scaled, and must have as many channels as are asked for.

    Args:
        resolution: height and width, one number where they are alike.
        channels: 1 for grey, 2 for grey and alpha, 3 for colour, 4 for colour and alpha, or as many as arrays have.
        fit: `center_crop` scales the image to cover height and width and cuts it at the centre; `resize` squeezes it;
            `as_is`, which conf/ does not offer, refuses images of another size.
        filter: `lanczos`, `bicubic` or `box`.
        max_pixels: a file that says it has more is not decoded: a small one can claim any number.
    """

    resolution: int | Sequence[int]
    channels: int
    fit: str = "center_crop"
    filter: str = "bicubic"
    max_pixels: int = 100_000_000

    def check(self, prefix: str = "") -> "Reading":
        """This reading, if it can be done; a ValueError, with `prefix` before the setting's name, if not."""
        height_and_width(self.resolution, f"{prefix}resolution")
        meanings = {"channels": ": 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha", "max_pixels": ""}
        for name, meaning in meanings.items():
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{prefix}{name} must be a whole number of at least 1{meaning}, got {value}")
        for name, allowed in (("fit", FITS), ("filter", tuple(FILTERS))):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{prefix}{name} must be one of {', '.join(map(str, allowed))}, got {value}")
        if self.max_pixels > PILLOW_LIMIT:
            raise ValueError(f"{prefix}max_pixels must be at most {PILLOW_LIMIT} (Pillow's), got {self.max_pixels}")
        return self

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return height_and_width(self.resolution)

    @property
    def max_bytes(self) -> int:
        """No file of `max_pixels` is larger: 16-bit colour with transparency, uncompressed, and its header."""
        return 2 * max(4, self.channels) * self.max_pixels + 2**20

    def size_of(self, file: Path | BinaryIO) -> tuple[int, int]:
        """Width and height of an image that is not decoded yet, once it is upright; any error as for `open`."""
        if (bands := open_bands(file, self.channels, self.max_pixels)) is not None:
            return bands.size
        with self.open(file) as image:
            return upright_size(image)

    def open(self, file: Path | BinaryIO) -> Image.Image:
        """An image whose pixels are not decoded yet; any error if it can be known not to be readable."""
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError as error:
            if is_empty(file):
                raise ValueError("the file is empty") from error
            lacking = "" if features.check("avif") else "; this Pillow lacks AVIF, which its wheels from 11.3 on have"
            raise ValueError(f"it is not one of {', '.join(FORMATS)} that Pillow can read{lacking}") from error
        try:
            if image.width * image.height > self.max_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels are over the limit of {self.max_pixels}")
            bits_of(image)
            self.mode_for(image)
        except Exception:
            image.close()
            raise
        return image

    def read(self, file: Path | BinaryIO, name: str | None = None) -> Tensor:
        """One file; a ValueError calls it by its name, or else its path, if it is not an image that can be read."""
        try:
            if (bands := open_bands(file, self.channels, self.max_pixels)) is not None:
                return self.shape_bands(bands)
            with self.open(file) as image:
                return self.shape(image)
        except MemoryError as error:
            raise MemoryError(f"while {name or file} was read") from error
        except Exception as error:  # what is damaged raises anything
            raise ValueError(unreadable({name or str(file): error})) from error

    def mode_for(self, image: Image.Image) -> str:
        """The mode with as many channels as are asked for; a ValueError if a picture has none such."""
        if self.channels not in MODES:
            own = f"a picture of {len(image.getbands())} channels ({image.mode})"
            raise ValueError(f"it is {own}, and channels={self.channels} takes .npy and TIFF files of that many")
        return MODES[self.channels]

    def shape(self, image: Image.Image) -> Tensor:
        """A picture in any mode; a ValueError if it has pixels of 32 bits, or cannot have so many channels."""
        bits, mode = bits_of(image), self.mode_for(image)
        image = upright(image)
        if bits > 8:  # convert() would cut everything above 255
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if self.channels in (1, 3):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = self.scale(image.convert(mode))
        return torch.from_numpy(np.array(image).reshape(*self.sides, self.channels)).permute(2, 0, 1)

    def shape_bands(self, bands: Bands) -> Tensor:
        """An array, whose channels are scaled one by one."""
        scaled = [np.array(self.scale(Image.fromarray(band))) for band in bands.pixels()]
        return torch.from_numpy(np.stack(scaled))

    def scale(self, image: Image.Image) -> Image.Image:
        """An image of 8 bits, scaled as this says."""
        (height, width), resample = self.sides, FILTERS[self.filter]
        if self.fit == "as_is":
            if image.size != (width, height):
                raise ValueError(f"upright it is {image.width} x {image.height}, where {width} x {height} are expected")
            return image
        if self.fit == "center_crop":
            return ImageOps.fit(image, (width, height), resample)
        return image.resize((width, height), resample)


class Sample(NamedTuple):
    """An image as it is stored: a file's bytes, its class or None, and what to call it in a message."""

    image: bytes
    label: int | None
    name: str


def decode(samples: list[Sample], reading: Reading) -> tuple[Tensor, Tensor | None]:
    """Images uint8 [B, C, H, W], and labels int64 [B] or None; a ValueError names one that is not an image."""
    images = [reading.read(io.BytesIO(sample.image), sample.name) for sample in samples]
    labels = [sample.label for sample in samples if sample.label is not None]
    return torch.stack(images), torch.tensor(labels) if labels else None


def bits_of(image: Image.Image) -> int:
    """How many bits the pixels of an image have, of which more than 8 only grey is kept with; 32 are refused."""
    if image.mode == "I" and image.format == "PPM":
        return 16  # whatever a file says its largest value is, Pillow scales it to 65535
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no agreed range; convert the file first")
    if image.mode.startswith("I;16"):
        return int(image.tag_v2[BITSPERSAMPLE][0]) if isinstance(image, TiffImageFile) else 16
    return 8


def is_image(file: Path | BinaryIO) -> bool:
    """Whether a file is one of `FORMATS`, by its content."""
    try:
        with Image.open(file, formats=FORMATS):
            return True
    except MemoryError:
        raise
    except Exception:  # what is damaged raises anything
        return False


def is_empty(file: Path | BinaryIO) -> bool:
    """Whether there is nothing in a file; an open one is then at its end."""
    return file.stat().st_size == 0 if isinstance(file, Path) else file.seek(0, io.SEEK_END) == 0


def unreadable(errors: Mapping[str, Exception]) -> str:
    """The message that names files that could not be read, ten at most, and why."""
    why = [f"({type(error).__name__}: {error})" for error in errors.values()]
    if len(errors) == 1:
        return f"cannot read this file as an image; repair or remove it:\n  {next(iter(errors))}\n{why[0]}"
    listed = "".join(f"\n  {file} {reason}" for file, reason in list(zip(errors, why, strict=True))[:10])
    more = "\n  ..." if len(errors) > 10 else ""
    return f"cannot read {len(errors)} files as images; repair or remove them:{listed}{more}"
