"""Images whose channels are no colours: arrays in `.npy` files, and TIFF files of any number of bands."""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import EXTRASAMPLES

__all__ = ["Bands", "array_header", "is_array", "open_bands"]

NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""What such files begin with."""
PLAIN, DEFLATE, OTHERS = 1, (8, 32946), (5, 32773)
"""Ways that TIFF stores pixels: as they are, deflated, by LZW or PackBits."""


@dataclass(frozen=True)
class Bands:
    """An array whose numbers are not read yet."""

    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axis: int | None
    """Which of its dimensions the channels are; None where it is [H, W]."""
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow has them."""
        height, width = (side for axis, side in enumerate(self.shape) if axis != self.axis)
        return width, height

    @property
    def channels(self) -> int:
        return 1 if self.axis is None else self.shape[self.axis]

    def check(self, channels: int | None, max_pixels: int) -> "Bands":
        """This array, if it can be read as so many channels; else a ValueError."""
        if self.dtype.kind != "u" or self.dtype.itemsize > 2:
            raise ValueError(f"its numbers are {self.dtype}, which have no agreed range: save uint8 or uint16")
        if math.prod(self.size) > max_pixels:
            raise ValueError(f"{self.size[0]} x {self.size[1]} pixels are over the limit of {max_pixels}")
        if channels not in (None, self.channels):
            raise ValueError(f"it has {self.channels} channels, and channels={channels} are asked for")
        return self

    def pixels(self) -> np.ndarray:
        """uint8 [C, H, W]: of 16 bits the highest 8."""
        array = self.load()
        array = array[None] if self.axis is None else np.moveaxis(array, self.axis, 0)
        return np.ascontiguousarray(array >> 8 * (array.dtype.itemsize - 1)).astype(np.uint8)


def open_bands(file: Path | BinaryIO, channels: int | None, max_pixels: int) -> Bands | None:
    """A file as an array, or None where it is a picture for Pillow.

    A TIFF is an array where more channels than colour and alpha are asked for, where the file says that a channel is
    neither, or where Pillow knows no such picture.

    Args:
        file: a path, or a stream.
        channels: how many there are to be; None takes any number.
        max_pixels: more are refused before they are read.

    Raises:
        ValueError: if it is such a file, and is damaged or not of that many channels.
    """
    with opened(file) as stream:
        start = stream.read(8)
    try:
        if start.startswith(NPY):
            return numpy_bands(file, channels).check(channels, max_pixels)
        if start.startswith(TIFF) and not is_picture(file, channels):
            return tiff_bands(file, max_pixels).check(channels, max_pixels)
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # what is damaged raises anything
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
    return None


@contextmanager
def opened(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A stream at its beginning; one that was given stays open."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            yield stream
    else:
        file.seek(0)
        yield file
        file.seek(0)


def array_header(file: IO[bytes], name: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """The type and shape of an array in numpy's format, and whether it goes by column; a ValueError for objects."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]]
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is in version {version} of numpy's format: save it again")
    shape, by_column, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not loaded")
    return dtype, shape, by_column


def is_array(file: Path | BinaryIO) -> bool:
    """Whether a `.npy` file may be an image by its dimensions, [H, W] or three; labels and features are not."""
    try:
        with opened(file) as stream:
            return len(array_header(stream, "it")[1]) in (2, 3)
    except MemoryError:
        raise
    except Exception:  # what is damaged raises anything; reading it says what
        return True


def numpy_bands(file: Path | BinaryIO, channels: int | None) -> Bands:
    """A `.npy` file of [H, W], [H, W, C] or [C, H, W]: the dimension that is the number of channels says which."""
    with opened(file) as stream:
        dtype, shape, _ = array_header(stream, "it")

    def load() -> np.ndarray:
        with opened(file) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    said = " x ".join(map(str, shape))
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"it is an array of {said or 'no'} numbers, and images are [H, W], [H, W, C] or [C, H, W]")
    if len(shape) == 2:
        return Bands("npy", shape, dtype, None, load)
    if channels is None:
        raise ValueError(f"it is an array of {said} numbers: say how many of them are channels, channels=NUMBER")
    axes = [axis for axis in (0, 2) if shape[axis] == channels]
    if len(axes) != 1:
        which = "both dimensions are" if axes else "neither dimension is"
        raise ValueError(f"it is an array of {said} numbers: of the first and the last, {which} channels={channels}")
    return Bands("npy", shape, dtype, axes[0], load)


def is_picture(file: Path | BinaryIO, channels: int | None) -> bool:
    """Whether Pillow reads all that is wanted of a TIFF."""
    if channels is not None and channels > 4:
        return False
    try:
        with Image.open(file, formats=("TIFF",)) as image:
            return channels in (None, 1, 3) or 0 not in image.tag_v2.get(EXTRASAMPLES, ())  # type: ignore[attr-defined]
    except MemoryError:
        raise
    except Exception:  # what is damaged raises anything
        return False


def tiff_bands(file: Path | BinaryIO, max_pixels: int) -> Bands:
    """A TIFF whose channels are in one page, or each in a page of its own."""
    import tifffile

    with opened(file) as stream, tifffile.TiffFile(stream) as tiff:
        first, count = tiff.pages.first, len(tiff.pages)
        shape, dtype, axes = first.shape, first.dtype, first.axes
        if axes != "YX":  # further pages are the same image, smaller
            count = 1
        if dtype is None or axes not in ("YX", "YXS", "SYX") or any(tiff.pages[i].shape != shape for i in range(count)):
            raise ValueError(f"it is a TIFF of {count} pages, {axes} {list(shape)}: save [H, W, C] as .npy")

    def load() -> np.ndarray:
        with opened(file) as stream, tifffile.TiffFile(stream) as tiff:
            pages: list[Any] = [tiff.pages[i] for i in range(count)]
            for page in pages:
                check_compression(stream, page, 2 * max_pixels * max(4, page.samplesperpixel))
            return np.stack([page.asarray() for page in pages]) if count > 1 else pages[0].asarray()

    if count > 1:
        return Bands("tiff", (count, *shape), dtype, 0, load)
    return Bands("tiff", shape, dtype, None if axes == "YX" else axes.index("S"), load)


def check_compression(stream: BinaryIO, page: Any, limit: int) -> None:
    """Refuse pages with parts of over `limit` bytes, parts that grow to more, and what only other packages expand."""
    compression, part = int(page.compression), math.prod(page.chunks) * page.dtype.itemsize
    if compression not in (PLAIN, *DEFLATE, *OTHERS):
        raise ValueError(f"it is compressed by {page.compression.name}: save it deflated, or uncompressed")
    if part > limit:
        raise ValueError(f"it has parts of {list(page.chunks)} pixels, over the limit")
    if compression in DEFLATE:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            stream.seek(offset)
            if len(zlib.decompressobj().decompress(stream.read(count), part + 1)) > part:
                raise ValueError("it grows to more than its pixels take: refused as a decompression bomb")
