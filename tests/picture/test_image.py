"""Pixels: bytes to [-1, 1] and back, grids, and what is written to the disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.picture.grid import HEADER, SHADE, choose_columns, image_grid, picture_of
from diffusion_lit.picture.image import (
    file_kind,
    from_uint8,
    read_image,
    save_image,
    save_npz,
    seen_as,
    to_uint8,
    visible,
)
from diffusion_lit.source.image_file import Reading


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_byte_survives_the_round_trip() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(values)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), torch.linspace(-1, 1, 256, dtype=torch.float64), rtol=0, atol=1e-7)
    assert x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(x), values)


def test_to_uint8_rounds_to_the_nearest_and_cuts_off() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    level = 2 / 255  # the distance between neighbouring bytes
    for offset in (-0.49, 0.49):
        assert torch.equal(to_uint8(from_uint8(values) + offset * level), values)
    outside = torch.tensor([-1.001, -7.0, -torch.inf, 1.001, 7.0, torch.inf])
    assert to_uint8(outside).tolist() == [0, 0, 0, 255, 255, 255]


def test_to_uint8_reads_low_precision_as_it_is() -> None:
    """A bfloat16 in [-1, 1] is rounded as the number it stands for, not in its own 8 bits."""
    x = torch.linspace(-1, 1, 1001).bfloat16()
    expected = np.clip(np.rint((x.double().numpy() + 1) * 127.5), 0, 255)
    assert np.abs(to_uint8(x).numpy().astype(float) - expected).max() == 0


@pytest.mark.parametrize(
    ("num_images", "channels", "resolution", "columns", "scale"),
    [(5, 1, 8, 3, 6), (6, 3, 32, 2, 2), (4, 3, 48, 2, 1), (2, 1, 64, 8, 1), (1, 3, 20, 1, 3)],
)
def test_grid_places_and_magnifies(num_images: int, channels: int, resolution: int, columns: int, scale: int) -> None:
    images = random_images(num_images, channels, resolution, resolution)
    remaining = image_grid(images, columns).numpy().astype(int)
    columns = min(columns, num_images)
    pitch = resolution * scale + 2
    assert remaining.shape == (channels, -(-num_images // columns) * pitch + 2, columns * pitch + 2)
    for i, image in enumerate(images.numpy()):
        top, left = 2 + i // columns * pitch, 2 + i % columns * pitch
        tile = remaining[:, top : top + resolution * scale, left : left + resolution * scale]
        assert np.array_equal(tile, np.kron(image, np.ones((1, scale, scale), int))), f"image {i}"
        tile[:] = -1
    assert set(np.unique(remaining)) == {-1, 32}, "between the images there is nothing but margin"


def test_a_grid_of_rectangles_is_about_square() -> None:
    assert [choose_columns(None, 16, *sides) for sides in ((8, 8), (8, 32), (32, 8))] == [4, 2, 8]
    grid = image_grid(random_images(6, 3, 4, 64), 2)
    assert grid.shape == (3, 3 * (12 + 2) + 2, 2 * (192 + 2) + 2), "magnified by 3: the sides of a square are 16"


@pytest.mark.parametrize(("height", "width"), [(64, 1), (128, 2), (256, 4), (512, 8), (64, 64)])
def test_a_title_has_the_room_of_its_column_or_none(height: int, width: int) -> None:
    images = torch.zeros(4, 1, height, width, dtype=torch.uint8)
    grid = picture_of(images, [0, 1, 2, 3], ["left", "right", "up", "down"])
    assert bool((grid[:, :HEADER] == SHADE).all()) == (width < 64)


def test_a_title_of_any_bytes_is_a_line() -> None:
    """As folders may be called, and so classes."""
    images = torch.zeros(2, 1, 100, 100, dtype=torch.uint8)
    odd, plain = (image_grid(images, 2, titles) for titles in (["new\nline", "caf\udce9"], ["new line", "caf\\udce9"]))
    assert torch.equal(odd, plain)


def test_alpha_is_seen_over_a_checkerboard() -> None:
    """Opaque pixels are themselves, and the squares of what shows through are those of any editor."""
    images = random_images(1, 4, 8, 16)
    images[:, 3, :, :8] = 255
    images[:, 3, :, 8:] = 0
    seen = visible(images)
    assert torch.equal(seen[..., :8], images[:, :3, :, :8])
    assert seen[0, 0, :2, 8:12].tolist() == [[102, 153, 102, 153], [153, 102, 153, 102]]
    half = torch.tensor([200, 51], dtype=torch.uint8).view(1, 2, 1, 1)
    assert visible(half).flatten().tolist() == [round(0.2 * 200 + 0.8 * 102)] and visible(half).shape[1] == 1
    assert visible(random_images(2, 5, 8, 8)).shape[1] == 3
    assert list(map(seen_as, (1, 3, 4, 5))) == ["", "", "alpha over a checkerboard", "the first 3 of 5 channels"]


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_any_number_of_channels_is_written_and_read(channels: int, tmp_path: Path) -> None:
    image = random_images(channels, 6, 9)
    path = tmp_path / f"image.{file_kind(channels)}"
    save_image(image, path)
    assert torch.equal(read_image(path), image)
    assert torch.equal(Reading([6, 9], channels).read(path), image), "data=image_folder reads it back"


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_image_is_the_image(tmp_path: Path, channels: int) -> None:
    image = random_images(channels, 5, 9)
    path = tmp_path / "new" / "folder" / "image.png"
    save_image(image, path)
    with Image.open(path) as file:
        assert file.mode == ("L" if channels == 1 else "RGB") and file.format == "PNG"
        pixels = np.asarray(file).reshape(5, 9, channels)
    assert np.array_equal(pixels, image.numpy().transpose(1, 2, 0))


@pytest.mark.parametrize("labels", [None, [3, 1, 4, 1]])
def test_saved_npz_follows_adm(tmp_path: Path, labels: list[int] | None) -> None:
    images = random_images(4, 3, 5, 6)
    path = tmp_path / "new" / "samples.npz"
    save_npz(images[:1], None, path)
    save_npz(images, labels, path)
    assert [file.name for file in path.parent.iterdir()] == ["samples.npz"]
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays.files) == (["arr_0"] if labels is None else ["arr_0", "arr_1"])
        assert arrays["arr_0"].dtype == np.uint8
        assert np.array_equal(arrays["arr_0"], images.numpy().transpose(0, 2, 3, 1))
        if labels is not None:
            assert arrays["arr_1"].dtype == np.int64 and arrays["arr_1"].tolist() == labels
