"""Arrays as images: `.npy` and TIFF files whose channels are no colours are taken as they are, or named."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffusion_lit.source.bands import open_bands
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading

BYTES = np.random.default_rng(0).integers(0, 256, (5, 6, 8), dtype=np.uint8)  # [C, H, W]
LAST = np.moveaxis(BYTES, 0, -1)
DEEP = BYTES.astype(np.uint16) * 256 + 77
Write = Callable[[Path], object]


def npy(array: np.ndarray) -> tuple[str, Write]:
    return "a.npy", lambda path: np.save(path, array)


def tif(array: np.ndarray, **options: object) -> tuple[str, Write]:
    return "a.tif", lambda path: tifffile.imwrite(path, array, photometric="minisblack", **options)


FIVE = {
    "npy, channels last": npy(LAST),
    "npy, channels first": npy(BYTES),
    "npy, 16 bits": npy(DEEP),
    "npy, 16 bits, most significant byte first": npy(DEEP.astype(">u2")),
    "npy, column by column": npy(np.asfortranarray(LAST)),
    "tiff, pixel by pixel": tif(LAST, planarconfig="contig"),
    "tiff, plane by plane": tif(BYTES, planarconfig="separate"),
    "tiff, a page each": tif(BYTES),
    "tiff, 16 bits": tif(DEEP, planarconfig="separate", byteorder=">"),
    "tiff, deflated, in tiles": tif(LAST, planarconfig="contig", compression="zlib", tile=(16, 16)),
    "bigtiff, predicted": tif(LAST, planarconfig="contig", compression="zlib", predictor=True, bigtiff=True),
}


@pytest.mark.parametrize("kind", FIVE)
def test_an_array_keeps_its_channels(kind: str, tmp_path: Path) -> None:
    """Of 16 bits the highest 8; from a path as from a stream."""
    name, write = FIVE[kind]
    write(tmp_path / name)
    reading = Reading([6, 8], 5).check()
    for file in (tmp_path / name, io.BytesIO((tmp_path / name).read_bytes())):
        assert np.array_equal(reading.read(file).numpy(), BYTES)
        assert reading.size_of(file) == (8, 6)


def test_each_channel_is_scaled_as_grey_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LAST)
    read = Reading([3, 2], 5, filter="lanczos").read(tmp_path / "a.npy")
    for band, scaled in zip(BYTES, read, strict=True):
        Image.fromarray(band).save(tmp_path / "band.png")
        assert np.array_equal(Reading([3, 2], 1, filter="lanczos").read(tmp_path / "band.png")[0], scaled)


def test_four_bands_are_colours_only_where_the_file_says_so(tmp_path: Path) -> None:
    """Pillow would drop a fourth band that is not alpha, and lay one that is on white."""
    four = np.ascontiguousarray(LAST[..., :4])
    tifffile.imwrite(tmp_path / "infrared.tif", four, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "alpha.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    assert open_bands(tmp_path / "infrared.tif", 4, 100) is not None
    assert open_bands(tmp_path / "alpha.tif", 4, 100) is None
    for name in ("infrared.tif", "alpha.tif"):
        assert np.array_equal(Reading([6, 8], 4).read(tmp_path / name), BYTES[:4])
    assert open_bands(tmp_path / "infrared.tif", 3, 100) is None, "as ever, where colour is asked for"


def bomb(path: Path) -> None:
    """Strips of a few bytes that grow to megabytes."""
    tifffile.imwrite(path, LAST, photometric="minisblack", planarconfig="contig", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        [offset], tag = page.dataoffsets, page.tags["StripByteCounts"]
    data, packed = bytearray(path.read_bytes()), zlib.compress(bytes(2**22))
    data += packed
    data[tag.valueoffset : tag.valueoffset + 4] = len(packed).to_bytes(4, "little")
    start = page.tags["StripOffsets"].valueoffset
    data[start : start + 4] = (len(data) - len(packed)).to_bytes(4, "little")
    assert offset
    path.write_bytes(data)


REFUSED: dict[str, tuple[str, Write, int, str]] = {
    "other count": (*npy(LAST), 4, "6 x 8 x 5 numbers: of the first and the last, neither dimension is channels=4"),
    "either count": (*npy(BYTES[:, :, :5]), 5, "5 x 6 x 5 numbers: .* both dimensions are channels=5"),
    "grey": (*npy(BYTES[0]), 5, "it has 1 channels, and channels=5"),
    "labels": (*npy(np.arange(4)), 5, "an array of 4 numbers, and images are"),
    "fractions": (*npy(LAST / 255), 5, "its numbers are float64, which have no agreed range: save uint8 or uint16"),
    "objects": ("a.npy", lambda path: np.save(path, np.array([None])), 5, "Python objects, which are not loaded"),
    "cut": ("a.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff"), 5, "EOF"),
    "too large": (*npy(np.zeros((40, 40, 5), np.uint8)), 5, "40 x 40 pixels are over the limit of 1000"),
    "tiff of other count": (*tif(LAST, planarconfig="contig"), 3, "it has 5 channels, and channels=3 are asked for"),
    "tiff of pages": (*tif(BYTES), 7, "it has 5 channels, and channels=7"),
    "cut tiff": ("a.tif", lambda path: path.write_bytes(b"II*\0\x08\0\0\0\xff\xff"), 5, "cannot read this file"),
    "bomb": ("a.tif", bomb, 5, "refused as a decompression bomb"),
    "picture": ("a.png", lambda path: Image.new("RGB", (8, 6)).save(path), 5, r"a picture of 3 channels \(RGB\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_taken_is_named(kind: str, tmp_path: Path) -> None:
    name, write, channels, words = REFUSED[kind]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=words) as caught:
        Reading([6, 8], channels, max_pixels=1000).read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_arrays_are_images_only_where_nothing_else_is(tmp_path: Path) -> None:
    """Beside images they may be anything, and are left out, as labels and features are; so no folder changed."""
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", LAST)
    np.save(tmp_path / "labels.npy", np.arange(4))
    source = FolderSource(tmp_path, 0.2)
    assert sum(map(len, source.splits.values())) == 4 and list(source.left_out) == ["labels.npy"]
    for i in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{i}.png")
    source = FolderSource(tmp_path, 0.2)
    assert sum(map(len, source.splits.values())) == 3 and len(source.left_out) == 5
