"""Every format and colour mode becomes the right pixels."""

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffusion_lit.checkpoint import damaged_part
from diffusion_lit.data import ImageFolderData
from diffusion_lit.drawn.folder import is_whole
from diffusion_lit.source.bands import is_array, is_picture, open_bands
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading, is_image
from diffusion_lit.trust.tensor_file import load_tensors
from tests.pictures import png, rotated_jpeg, solid

Pixels = NDArray[Any]

COLOUR = (200, 40, 90)
LUMA = 0.299 * 200 + 0.587 * 40 + 0.114 * 90  # ITU-R BT.601, as "grey" means in image files


def random_pixels(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read(path: Path, resolution: int, channels: int = 3) -> Pixels:
    """What the file becomes, [H, W, C] as numbers that can be subtracted."""
    image = Reading(resolution, channels).read(path)
    assert image.dtype == torch.uint8 and image.shape == (channels, resolution, resolution)
    return image.permute(1, 2, 0).numpy().astype(int)


def palette_image(size: tuple[int, int]) -> Image.Image:
    """Every pixel is entry 1, which is COLOUR; entry 0 is black."""
    image = Image.new("P", size, 1)
    image.putpalette([0, 0, 0, *COLOUR])
    return image


def over_white(value: float, alpha: int) -> float:
    return (value * alpha + 255 * (255 - alpha)) / 255


SIZE = (22, 14)
WHITE, CYAN = (255, 255, 255), (0, 255, 255)
SOLID: dict[str, tuple[str, Callable[[], Image.Image], dict[str, Any], tuple[float, float, float]]] = {
    "RGB png": ("a.png", lambda: Image.new("RGB", SIZE, COLOUR), {}, COLOUR),
    "RGB jpg": ("a.jpg", lambda: Image.new("RGB", SIZE, COLOUR), {"quality": 95}, COLOUR),
    "RGB webp": ("a.webp", lambda: Image.new("RGB", SIZE, COLOUR), {"lossless": True}, COLOUR),
    "RGB bmp": ("a.bmp", lambda: Image.new("RGB", SIZE, COLOUR), {}, COLOUR),
    "RGB tiff": ("a.tiff", lambda: Image.new("RGB", SIZE, COLOUR), {}, COLOUR),
    "RGB ppm": ("a.ppm", lambda: Image.new("RGB", SIZE, COLOUR), {}, COLOUR),
    "RGB avif": ("a.avif", lambda: Image.new("RGB", SIZE, COLOUR), {"quality": 95}, COLOUR),
    "RGB jfif": ("a.jfif", lambda: Image.new("RGB", SIZE, COLOUR), {"quality": 95}, COLOUR),
    "RGB jpeg 2000": ("a.jp2", lambda: Image.new("RGB", SIZE, COLOUR), {}, COLOUR),
    "L png": ("a.png", lambda: Image.new("L", SIZE, 77), {}, (77, 77, 77)),
    "L jpg": ("a.jpeg", lambda: Image.new("L", SIZE, 77), {"quality": 95}, (77, 77, 77)),
    "L pgm": ("a.pgm", lambda: Image.new("L", SIZE, 77), {}, (77, 77, 77)),
    "1 png": ("a.png", lambda: Image.new("1", SIZE, 1), {}, WHITE),
    "P gif": ("a.gif", lambda: palette_image(SIZE), {}, COLOUR),
    "P png": ("a.png", lambda: palette_image(SIZE), {}, COLOUR),
    "P png, transparent": ("a.png", lambda: palette_image(SIZE), {"transparency": 1}, WHITE),
    "P gif, transparent": ("a.gif", lambda: palette_image(SIZE), {"transparency": 1}, WHITE),
    "P png, another entry transparent": ("a.png", lambda: palette_image(SIZE), {"transparency": 0}, COLOUR),
    "RGB png, a colour transparent": (
        "a.png",
        lambda: Image.new("RGB", SIZE, COLOUR),
        {"transparency": COLOUR},
        WHITE,
    ),
    "RGBA png, opaque": ("a.png", lambda: Image.new("RGBA", SIZE, (*COLOUR, 255)), {}, COLOUR),
    "RGBA png, transparent": ("a.png", lambda: Image.new("RGBA", SIZE, (*COLOUR, 0)), {}, WHITE),
    "RGBA webp, half": (
        "a.webp",
        lambda: Image.new("RGBA", SIZE, (*COLOUR, 100)),
        {"lossless": True},
        (over_white(200, 100), over_white(40, 100), over_white(90, 100)),
    ),
    "P png, half": (
        "a.png",
        lambda: palette_image(SIZE),
        {"transparency": bytes([255, 100])},
        (over_white(200, 100), over_white(40, 100), over_white(90, 100)),
    ),
    "LA png, half": ("a.png", lambda: Image.new("LA", SIZE, (77, 100)), {}, (over_white(77, 100),) * 3),
    "CMYK jpg": ("a.jpg", lambda: Image.new("CMYK", SIZE, (255, 0, 0, 0)), {"quality": 95}, CYAN),
    "CMYK tif": ("a.tif", lambda: Image.new("CMYK", SIZE, (255, 0, 0, 0)), {}, CYAN),
    "16-bit png": ("a.png", lambda: Image.fromarray(np.full(SIZE, 0x4DF0, np.uint16)), {}, (0x4D,) * 3),
    "16-bit tiff": ("a.tiff", lambda: Image.fromarray(np.full(SIZE, 0xFE01, np.uint16)), {}, (0xFE,) * 3),
}


@pytest.mark.parametrize("kind", SOLID)
@pytest.mark.parametrize("resolution", [7, 32])
def test_a_solid_colour_stays_what_it_is(tmp_path: Path, kind: str, resolution: int) -> None:
    name, make, options, expected = SOLID[kind]
    make().save(tmp_path / name, **options)
    tolerance = 2 if name.endswith(("jpg", "jpeg", "jfif", "avif")) else 1  # levels: JPEG's YCbCr, and one rounding
    assert np.abs(read(tmp_path / name, resolution) - expected).max() <= tolerance
    grey = np.dot(expected, (0.299, 0.587, 0.114))
    assert np.abs(read(tmp_path / name, resolution, channels=1) - grey).max() <= tolerance


def test_luma_is_what_grey_means(tmp_path: Path) -> None:
    assert np.abs(read(solid(tmp_path / "a.png", COLOUR), 8, channels=1) - LUMA).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.ppm"])
def test_pixels_of_the_right_size_are_kept_exactly(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(16, 16, 3)
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    assert np.array_equal(read(tmp_path / name, 16), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif", "a.pgm"])
def test_grey_pixels_are_kept_exactly(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(16, 16)
    Image.fromarray(pixels).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name, 16, channels=1)[..., 0], pixels)
    assert np.array_equal(read(tmp_path / name, 16), np.repeat(pixels[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (16, 16), dtype=np.uint16)
    pixels[0, :4] = (0, 255, 256, 65535)
    Image.fromarray(pixels).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name, 16, channels=1)[..., 0], pixels // 256)


def grey_map(values: Pixels, largest: int, plain: bool) -> bytes:
    """A PGM file, whose largest value may be any up to 65535, in binary or in words."""
    head = f"P{2 if plain else 5}\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    return head + (" ".join(map(str, values.flat)).encode() if plain else values.astype(">u2").tobytes())


def packed_tiff(values: Pixels) -> bytes:
    """A TIFF file of 12 bits a pixel, two pixels in three bytes."""
    left, right = values.reshape(-1, 2).T
    data = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], 1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: 12,
        259: 1,
        262: 1,
        273: 8 + 2 + 12 * 9 + 4,
        277: 1,
        278: height,
        279: len(data),
    }
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II" + struct.pack("<HI", 42, 8) + struct.pack("<H", len(tags)) + fields + bytes(4) + data


def test_grey_is_scaled_by_its_own_depth(tmp_path: Path) -> None:
    """Black stays black, white becomes white, and everything between is less than a level off."""

    def check(file: bytes, largest: int) -> None:
        found = Reading(16, 1).read(io.BytesIO(file))[0].numpy().astype(float)
        assert found[0, 0] == 0 and found[0, 1] == 255 and np.abs(found - values * 255 / largest).max() < 1

    for largest in (256, 1000, 1023, 4095, 65535):
        values = np.random.default_rng(largest).integers(0, largest + 1, (16, 16))
        values[0, :2] = (0, largest)
        check(grey_map(values, largest, plain=False), largest)
        check(grey_map(values, largest, plain=True), largest)
        if largest == 4095:
            check(packed_tiff(values), largest)
    for kind, order in (("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2"), ("jpeg2000", "<u2")):
        file = io.BytesIO()
        Image.fromarray(values.astype(order)).save(file, kind)
        assert kind != "tiff" or file.getvalue()[:2] == (b"II" if order == "<u2" else b"MM")
        check(file.getvalue(), 65535)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_deep_grey_is_turned_upright(order: str) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) << 8
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(values.astype(order)).save(file, "tiff", exif=exif)
    assert np.array_equal(Reading(16, 1).read(file)[0].numpy(), np.rot90(values >> 8, -1))


def test_pixels_of_32_bits_have_no_range(tmp_path: Path) -> None:
    """Found without decoding them."""
    for dtype in (np.float32, np.int32):
        file = io.BytesIO()
        Image.fromarray(np.ones((4, 4), dtype)).save(file, "tiff")
        with pytest.raises(ValueError, match="32 bits"):
            Reading(4, 1).open(file)


def test_1_bit_halves(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16), bool)
    pixels[:, 8:] = True
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == "1"
    assert np.array_equal(read(tmp_path / "a.png", 16, channels=1)[..., 0], pixels * 255)


def test_hidden_colours_do_not_bleed_out_of_transparent_pixels(tmp_path: Path) -> None:
    """Left half opaque white, right half transparent over a hidden black: white throughout, at the edge too."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png", 8) == 255).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff", "a.avif"])
def test_an_animation_is_its_first_frame(tmp_path: Path, name: str) -> None:
    first, second = Image.new("L", SIZE, 50), Image.new("L", SIZE, 200)
    first.save(tmp_path / name, save_all=True, append_images=[second])
    assert np.abs(read(tmp_path / name, 8) - 50).max() <= (0 if name in ("a.gif", "a.png", "a.tiff") else 2)


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}
"""What a viewer does for each value of EXIF's tag Orientation (6: the camera was turned, rotate clockwise)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_cameras_orientation_is_followed(tmp_path: Path, name: str, orientation: int) -> None:
    corners = np.array([[COLOUR, (20, 200, 30)], [(0, 0, 0), (250, 250, 250)]], np.uint8)
    stored = np.kron(corners, np.ones((16, 16, 1), np.uint8))  # JPEG's blocks of 8 are of one colour
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
    assert np.abs(read(tmp_path / name, 32) - UPRIGHT[orientation](stored)).max() <= 3  # levels, of JPEG


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp", "avif"])
def test_the_size_of_a_file_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (24, 16), COLOUR).save(file, kind, exif=exif)
    assert Reading(8, 3).size_of(file) == ((24, 16) if orientation < 5 else (16, 24))


def test_the_size_of_a_png_is_known_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    assert Reading(8, 3).size_of(io.BytesIO(png(0, (24, 16)))) == (24, 16)


@pytest.mark.parametrize(("tag", "kind"), {256: 2, 296: 2, 330: 2, 531: 1}.items())
def test_a_tag_of_another_type_does_not_spoil_a_rotated_photo(tag: int, kind: int) -> None:
    """ImageWidth, ResolutionUnit or SubIFDs in letters, YCbCrPositioning as a byte; Pillow cannot write them again."""
    file = io.BytesIO(rotated_jpeg({tag: (kind, 50)}, (20, 10)))
    assert Reading(8, 3).size_of(file) == (10, 20)
    assert np.abs(Reading([20, 10], 3).read(file).numpy().astype(int) - 100).max() <= 1


def test_a_damaged_file_of_any_name_does_not_end_a_listing(tmp_path: Path) -> None:
    """Pillow raises a RuntimeError as it opens an AVIF that does not say which of its items is the picture."""
    file = io.BytesIO()
    Image.new("RGB", SIZE, COLOUR).save(file, "avif")
    (tmp_path / "photo").write_bytes(file.getvalue().replace(b"pitm", b"none"))
    for i in range(3):
        solid(tmp_path / f"{i}.png", i)
    assert list(FolderSource(tmp_path, 0.2).left_out) == ["photo"]


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16), (16, 18), (16, 16)])
def test_the_centre_is_kept(tmp_path: Path, height: int, width: int) -> None:
    pixels = random_pixels(height, width, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    top, left = (height - 16) // 2, (width - 16) // 2
    assert np.array_equal(read(tmp_path / "a.png", 16), pixels[top : top + 16, left : left + 16])


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_kept_where_the_image_shrinks(tmp_path: Path, wide: bool) -> None:
    """A grey square between black sides, 64 x 192: only grey is left, but for the filter's reach at the edges."""
    pixels = np.zeros((64, 192), np.uint8)
    pixels[:, 64:128] = 128
    Image.fromarray(pixels if wide else pixels.T).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png", 16, channels=1)[2:-2, 2:-2] - 128).max() <= 1


@pytest.mark.parametrize("across", [True, False])
def test_a_gradient_shrinks_to_the_means_of_its_blocks(tmp_path: Path, across: bool) -> None:
    """Any antialiasing filter maps a linear ramp to itself: pixel j is the mean of the 4 it covers."""
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(ramp if across else ramp.T).save(tmp_path / "a.png")
    shrunk = read(tmp_path / "a.png", 16, channels=1)[..., 0]
    expected = ramp[0].reshape(16, 4).mean(1)
    rows = shrunk if across else shrunk.T
    assert np.abs(rows - expected)[:, 2:-2].max() <= 0.5 + 1e-9  # rounding; the filter is cut off at the edges


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    """Black and white pixels in turn become grey; picking some of them would give black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png", 16, channels=1)[2:-2, 2:-2] - 127.5).max() <= 1.5


def test_enlarging_is_smooth(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    enlarged = read(tmp_path / "a.png", 32, channels=1)[..., 0]
    assert np.abs(np.diff(enlarged[:, 5:-5], axis=1) - 8).max() <= 1, "steps of 16 over two pixels"


# What cannot be read.


def test_what_is_wrong_with_a_file_is_known_when_it_is_opened(tmp_path: Path) -> None:
    """The same as reading says of it, and no other formats: Ghostscript is run for some, and icons are many images."""
    for kind, words in {
        "ico": "not one of AVIF, BMP",
        "eps": "not one of AVIF, BMP",
        "png": "over the limit of 63",
    }.items():
        Image.new("RGB", (8, 8)).save(tmp_path / "a", kind)
        (tmp_path / "a").rename(tmp_path / "a.png")
        for attempt in (Reading(4, 3, max_pixels=63).open, Reading(4, 3, max_pixels=63).read):
            with pytest.raises(ValueError, match=words):
                attempt(tmp_path / "a.png")
    assert Reading(4, 3, max_pixels=64).open(tmp_path / "a.png").size == (8, 8)


def test_a_pillow_without_avif_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.avif")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=r"lacks AVIF, which its wheels from 11\.3 on have"),
    ):
        warnings.simplefilter("ignore")  # Pillow's
        Reading(4, 3).read(tmp_path / "a.avif")


SPRITE = np.dstack([random_pixels(6, 8, 3), np.tile(np.uint8([0, 90, 255, 255]), (6, 2))])  # [6, 8, 4]


@pytest.mark.parametrize(
    ("channels", "mode", "expected"),
    [
        (4, "RGBA", SPRITE),
        (4, "RGB", np.dstack([SPRITE[..., :3], np.full((6, 8), 255)])),
        (2, "LA", None),
        (2, "L", None),
    ],
)
def test_alpha_is_kept_where_it_is_asked_for(channels: int, mode: str, expected: Pixels | None, tmp_path: Path) -> None:
    """What has none is opaque. A palette's and a 16-bit file's are alpha too."""
    image = Image.fromarray(SPRITE).convert(mode)
    image.save(tmp_path / "a.png")
    if expected is None:
        grey = np.asarray(image.convert("LA"))
        expected = grey if mode == "LA" else np.dstack([grey[..., 0], np.full((6, 8), 255)])
    read = Reading([6, 8], channels).check().read(tmp_path / "a.png")
    assert np.array_equal(read.permute(1, 2, 0), expected)


def test_transparent_pixels_lend_no_colour_when_scaled(tmp_path: Path) -> None:
    sprite = np.zeros((8, 8, 4), np.uint8)
    sprite[:, 4:] = (200, 100, 50, 255)
    sprite[:, :4, 1] = 255  # green that nobody sees
    Image.fromarray(sprite).save(tmp_path / "a.png")
    small = Reading([2, 3], 4, "resize", "box").read(tmp_path / "a.png").permute(1, 2, 0).numpy().astype(int)
    seen = small[small[..., 3] > 20]
    assert len(seen) and np.abs(seen[:, :3] - (200, 100, 50)).max() <= 1


@pytest.mark.parametrize("fit", ["center_crop", "resize"])
def test_rectangles_are_the_middle_of_an_image_or_all_of_it(fit: str, tmp_path: Path) -> None:
    """The target's shape is covered and cut, or filled; a whole factor of a box filter is a mean over blocks."""
    pixels = random_pixels(12, 24, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = Reading([6, 8], 3, fit, "box").read(tmp_path / "a.png").permute(1, 2, 0).numpy().astype(int)
    wide = 2 if fit == "center_crop" else 3
    cut = pixels[:, 4:20] if fit == "center_crop" else pixels
    expected = cut.reshape(6, 2, 8, wide, 3).mean((1, 3))
    assert np.abs(read - expected).max() <= 1


NO_MEMORY: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an image": ("PIL.Image.open", Reading(8, 3).read),
    "whether it is one": ("PIL.Image.open", is_image),
    "a picture or bands": ("PIL.Image.open", lambda file: is_picture(file, 3)),
    "an array": ("numpy.lib.format.read_array_header_1_0", lambda file: open_bands(file, 3, 100)),
    "whether it is an array": ("numpy.lib.format.read_array_header_1_0", is_array),
    "a folder": ("PIL.Image.open", lambda file: ImageFolderData(str(file.parent), 8).check_files()),
    "a drawn image": ("PIL.Image.open", is_whole),
    "a checkpoint": ("torch.load", load_tensors),
    "a checkpoint's checksums": ("zipfile.ZipFile.__init__", damaged_part),
}


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_a_file_is_not_damaged_where_memory_ran_out(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    for i in range(3):
        solid(tmp_path / f"{i}.png", i)
    file = tmp_path / "0.png"
    if "array" in kind:
        np.save(file := tmp_path / "0.npy", np.zeros((8, 8, 3), np.uint8))
    name, use = NO_MEMORY[kind]
    monkeypatch.setattr(name, fail)
    with pytest.raises(MemoryError) as caught:
        use(file)
    assert kind != "an image" or str(file) in str(caught.value)
