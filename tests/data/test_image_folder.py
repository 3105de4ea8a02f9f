"""Folders of image files: every format and mode becomes the right pixels, every mistake is named."""

import logging
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffusion_lit.augmentation import FlipAugmentation
from diffusion_lit.data import Batch, ImageFolderData
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading

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


def solid(path: Path, value: int | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)
    return path


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
    tolerance = 2 if name.endswith(("jpg", "jpeg")) else 1  # levels: JPEG's YCbCr, and one rounding
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


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("L", SIZE, 50), Image.new("L", SIZE, 200)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (read(tmp_path / "a.gif", 8) == 50).all()


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


# Folders.


def numbered(folder: Path, names: list[str], first: int = 0) -> dict[str, int]:
    """Write an 8 x 8 image for each name, of the grey level that the name is given."""
    levels = {name: first + i for i, name in enumerate(names)}
    for name, level in levels.items():
        solid(folder / name, level)
    return levels


def contents(data: ImageFolderData) -> dict[str, dict[int, int | None]]:
    """The grey level of each image in each split, and its label."""
    data.setup()
    found: dict[str, dict[int, int | None]] = {}
    for split, images in data.splits.items():
        pixels, labels = images.fetch(list(range(len(images))))
        assert pixels.dtype == torch.uint8 and (labels is None or labels.dtype == torch.int64)
        levels = pixels[:, 0, 0, 0].tolist()
        assert len(set(levels)) == len(levels)
        found[split] = dict(zip(levels, [None] * len(levels) if labels is None else labels.tolist(), strict=True))
    return found


def test_class_folders_are_labels(tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in ("dog", "cat", "emu") for i in range(6)] + ["cat/more/deep/x.PNG"]
    levels = numbered(tmp_path, names)
    (tmp_path / "dog" / "notes.txt").write_text("not an image, and not taken for one")
    (tmp_path / "classes.csv").write_text("neither is this")
    data = ImageFolderData(str(tmp_path), 8, channels=1, val_fraction=0.2)
    assert data.class_names == ["cat", "dog", "emu"] and data.num_classes == 3
    found = contents(data)
    assert set(found) == {"train", "val", "test"} and all(found.values())
    together = [pair for split in found.values() for pair in split.items()]
    assert sorted(together) == sorted((level, ["cat", "dog", "emu"].index(n[:3])) for n, level in levels.items())


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    numbered(tmp_path, [f"{i}.png" for i in range(20)])
    data = ImageFolderData(str(tmp_path), 8, channels=1, val_fraction=0.2, batch_size=2)
    assert data.class_names is None and data.num_classes is None
    found = contents(data)
    assert sorted(level for split in found.values() for level in split) == list(range(20))
    assert all(label is None for split in found.values() for label in split.values())
    data.num_workers = 0
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (2, 1, 8, 8) and batch.condition.label is None


def test_split_folders_are_the_splits(tmp_path: Path) -> None:
    expected: dict[str, dict[int, int | None]] = {"train": {}, "val": {}, "test": {}}
    for first, split in zip((0, 50, 100), expected, strict=True):
        levels = numbered(tmp_path / split, [f"{name}/{i}.png" for name in ("b", "a") for i in range(3)], first)
        expected[split] = {level: ["a", "b"].index(name[0]) for name, level in levels.items()}
    data = ImageFolderData(str(tmp_path), 8, channels=1)
    assert data.class_names == ["a", "b"]
    assert contents(data) == expected


def test_split_folders_without_classes(tmp_path: Path) -> None:
    for first, split in enumerate(("train", "val", "test")):
        numbered(tmp_path / split, ["0.png", "1.png"], 2 * first)
    data = ImageFolderData(str(tmp_path), 8, channels=1)
    assert data.num_classes is None
    assert contents(data) == {"train": {0: None, 1: None}, "val": {2: None, 3: None}, "test": {4: None, 5: None}}


def members(data: ImageFolderData) -> dict[str, set[str]]:
    """The files of each split, by their names below the root."""
    return {split: {entry.name for entry in entries} for split, entries in data.source.splits.items()}


def test_the_hashed_split_stays_when_files_come_and_the_folder_moves(tmp_path: Path) -> None:
    root = tmp_path / "old"
    root.mkdir()
    for i in range(1000):
        (root / f"{i}.png").touch()  # the split knows only their names
    before = members(ImageFolderData(str(root), 8, val_fraction=0.1))
    assert sum(map(len, before.values())) == 1000 == len(set.union(*before.values()))
    for split in ("val", "test"):
        # a share of 0.1 of 1000 independent names has a standard deviation of 9.5: five of them
        assert abs(len(before[split]) - 100) < 48
    for i in range(1000, 1300):
        (root / f"{i}.png").touch()
    root.rename(tmp_path / "new")
    after = members(ImageFolderData(str(tmp_path / "new"), 8, val_fraction=0.1, seed=9))
    assert sum(map(len, after.values())) == 1300
    for split in before:
        assert before[split] == {name for name in after[split] if int(name[:-4]) < 1000}


@pytest.mark.parametrize("num_images", [3, 4, 10])
def test_small_folders_still_have_three_splits(tmp_path: Path, num_images: int) -> None:
    numbered(tmp_path, [f"{i}.png" for i in range(num_images)])
    found = contents(ImageFolderData(str(tmp_path), 8, channels=1))
    assert all(found.values())
    assert sorted(level for split in found.values() for level in split) == list(range(num_images))


def test_images_in_linked_class_folders_are_found(tmp_path: Path) -> None:
    """Folders put together from links must not silently come out smaller."""
    numbered(tmp_path / "elsewhere", [f"{i}.png" for i in range(10)], first=10)
    numbered(tmp_path / "root" / "a", [f"{i}.png" for i in range(10)])
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    data = ImageFolderData(str(tmp_path / "root"), 8, channels=1, val_fraction=0.2)
    assert data.class_names == ["a", "b"]


def test_small_images_are_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbered(tmp_path, [f"{i}.png" for i in range(5)])
    solid(tmp_path / "large.png", 200, (20, 12))
    with caplog.at_level(logging.WARNING):
        ImageFolderData(str(tmp_path), 12, channels=1).setup()
    assert "5 images are smaller than data.resolution=12" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ImageFolderData(str(tmp_path), 8, channels=1).setup()
    assert caplog.text == ""


# Flips and workers.


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """48 training images, each black on its left, of a level of its own on its right; labels are the levels."""
    root = tmp_path_factory.mktemp("handed")
    for i in range(48):
        pixels = np.zeros((4, 4), np.uint8)
        pixels[:, 2:] = 100 + i
        (root / "train" / f"{i:02d}").mkdir(parents=True)
        Image.fromarray(pixels).save(root / "train" / f"{i:02d}" / "x.png")
    for split in ("val", "test"):
        shutil.copytree(root / "train" / "00", root / split / "00")
    return str(root)


def augmented(batch: Batch) -> tuple[Tensor, Tensor]:
    """Images and labels as a flip leaves them in a training step."""
    assert batch.condition.label is not None
    if batch.draws is None:
        return batch.images, batch.condition.label
    return FlipAugmentation()(batch.images, batch.draws)[0], batch.condition.label


def epoch_batches(data: ImageFolderData, epochs: tuple[int, ...]) -> dict[int, list[tuple[Tensor, Tensor]]]:
    data.setup()
    loader = data.train_dataloader()
    batches: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for epoch in epochs:
        _set_sampler_epoch(loader, epoch)
        batches[epoch] = [augmented(batch) for batch in loader]
    return batches


def flipped(batches: list[tuple[Tensor, Tensor]]) -> dict[int, bool]:
    """For each image number, whether it came mirrored; that it is otherwise untouched is checked."""
    found: dict[int, bool] = {}
    for images, labels in batches:
        for image, number in zip(images[:, 0], labels.tolist(), strict=True):
            dark, bright = torch.zeros(4, 2, dtype=torch.uint8), torch.full((4, 2), 100 + number, dtype=torch.uint8)
            mirrored = bool(image[0, 0] > 0)
            assert torch.equal(image, torch.cat([bright, dark] if mirrored else [dark, bright], dim=1))
            assert number not in found
            found[number] = mirrored
    return found


def test_a_flip_is_a_function_of_seed_epoch_and_image(handed: str) -> None:
    draws: dict[tuple[int, int], dict[int, bool]] = {}
    flip = FlipAugmentation()
    for seed, batch_size in product((0, 1), (1, 6, 16)):
        data = ImageFolderData(handed, 4, 1, batch_size=batch_size, num_workers=0, seed=seed, augmentation=flip)
        for epoch, batches in epoch_batches(data, (0, 1, 2)).items():
            assert len(batches) == 48 // batch_size
            assert draws.setdefault((seed, epoch), flipped(batches)) == flipped(batches)
    patterns = {tuple(draw[i] for i in range(48)) for draw in draws.values()}
    assert len(patterns) == 6, "each epoch of each seed draws anew"
    # 288 flips of a fair coin have a standard deviation of 8.5: five of them
    assert abs(sum(map(sum, patterns)) - 144) < 43


def test_without_flip_nothing_is_mirrored(handed: str) -> None:
    data = ImageFolderData(handed, 4, channels=1, batch_size=16, num_workers=0)
    assert not any(flipped(epoch_batches(data, (0,))[0]).values())


def test_evaluation_is_never_augmented(handed: str) -> None:
    data = ImageFolderData(handed, 4, channels=1, num_workers=0, augmentation=FlipAugmentation())
    data.splits = {split: data.load()["train"] for split in ("val", "test")}
    for loader in (data.val_dataloader(), data.test_dataloader()):
        draw = flipped([augmented(batch) for batch in loader])
        assert len(draw) == 48 and not any(draw.values())


def test_workers_change_nothing(handed: str) -> None:
    here, there = (
        epoch_batches(
            ImageFolderData(handed, 4, 1, batch_size=7, num_workers=num_workers, augmentation=FlipAugmentation()),
            (0, 1),
        )
        for num_workers in (0, 2)
    )
    for epoch, batches in here.items():
        for (images, labels), (other_images, other_labels) in zip(batches, there[epoch], strict=True):
            assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


# Mistakes.


def message(caught: pytest.ExceptionInfo[Exception], *parts: object) -> str:
    """The message, which names all of `parts` and fits a screen."""
    text = str(caught.value)
    for part in parts:
        assert str(part) in text
    assert len(text.splitlines()) <= 20
    return text


def test_no_root() -> None:
    with pytest.raises(ValueError, match=r"data\.root=FOLDER"):
        ImageFolderData(None, 8)


def test_missing_root(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", solid(tmp_path / "file.png", 0)):
        with pytest.raises(ValueError) as caught:
            ImageFolderData(str(path), 8)
        message(caught, f"data.root={path}", "not a folder")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), 8)
    message(caught, "no images in", tmp_path, ".png", ".jpg", ".webp")


@pytest.mark.parametrize("there", [["train"], ["train", "val"], ["train", "valid", "test"], ["Train", "validation"]])
def test_splits_that_are_missing_are_set_aside(tmp_path: Path, there: list[str]) -> None:
    """As `prepare` does it: from train, by the same names, and only what is missing; an empty folder is missing too."""
    for first, split in enumerate(there):
        numbered(tmp_path / split, [f"{kind}/{i}.png" for kind in "ab" for i in range(20)], 40 * first)
    (tmp_path / "test").mkdir(exist_ok=True)
    data = ImageFolderData(str(tmp_path), 8, channels=1, val_fraction=0.2)
    found, given = contents(data), {"train": 0, "val": 1, "test": 2}
    assert data.class_names == ["a", "b"] and all(found.values())
    for level, split in ((level, split) for split, inside in found.items() for level in inside):
        assert level // 40 == (given[split] if given[split] < len(there) else 0)
    assert members(data) == {
        split: {entry.name for entry in entries} for split, entries in FolderSource(tmp_path, 0.2).splits.items()
    }


def test_loose_images_beside_class_folders(tmp_path: Path) -> None:
    numbered(tmp_path, ["a/0.png", "a/1.png", "b/0.png", "stray.png", "wild.png"])
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), 8)
    message(caught, tmp_path, "2 images outside", "stray.png", "move them into class folders")


def test_classes_in_some_split_folders_only(tmp_path: Path) -> None:
    """Labels for training and none for validation cannot be meant."""
    numbered(tmp_path / "train", ["a/0.png", "b/0.png"])
    numbered(tmp_path / "val", ["0.png", "1.png"])
    numbered(tmp_path / "test", ["a/0.png", "b/0.png"])
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), 8).setup()
    message(caught, "val")


@pytest.mark.parametrize("names", [["0.png"], ["0.png", "1.png"]])
def test_too_few_images(tmp_path: Path, names: list[str]) -> None:
    numbered(tmp_path, names)
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), 8)
    message(caught, tmp_path, "too few images")


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    """Two names that hash to validation and to testing at the default share."""
    for i in range(300):
        (tmp_path / f"{i}.png").touch()
    hashed = members(ImageFolderData(str(tmp_path), 8))
    root = tmp_path / "root"
    numbered(root, [min(hashed["val"]), min(hashed["test"])])
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(root), 8)
    message(caught, root, "too few images")


def broken_folder(root: Path) -> Path:
    """Three good images in each split; the caller breaks one."""
    for split in ("train", "val", "test"):
        numbered(root / split, ["0.png", "1.png", "2.png"])
    return root


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"this is no image at all\n"),
        ("empty.jpg", b""),
        ("zeros.webp", bytes(100)),
        ("cut.gif", b"GIF89a\x08"),
        ("cut.bmp", b"BM\x00\x00"),
        ("cut.ppm", b"P6\n24 "),
    ],
)
def test_what_is_no_image_is_named_before_training(tmp_path: Path, name: str, content: bytes) -> None:
    path = broken_folder(tmp_path) / "val" / name
    path.write_bytes(content)
    data = ImageFolderData(str(tmp_path), 8)
    with pytest.raises(ValueError) as caught:
        data.setup()
    message(caught, path, "repair or remove it")


def test_many_broken_files_fit_a_screen(tmp_path: Path) -> None:
    root = broken_folder(tmp_path)
    for i in range(40):
        (root / "train" / f"text{i:02d}.png").write_text("no image")
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(root), 8).setup()
    message(caught, "40 files", root / "train" / "text00.png", "...")


def test_an_image_too_large_to_be_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = solid(broken_folder(tmp_path) / "train" / "bomb.png", 0, (30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow refuses twice as many
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), 8).setup()
    message(caught, path, "DecompressionBombError")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_truncated_image_is_named_when_it_is_read(tmp_path: Path, num_workers: int) -> None:
    path = broken_folder(tmp_path) / "train" / "cut.jpg"
    Image.fromarray(random_pixels(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    data = ImageFolderData(str(tmp_path), 8, batch_size=1, num_workers=num_workers)
    data.setup()  # its header is fine
    with pytest.raises(ValueError) as caught:
        list(data.train_dataloader())
    if num_workers == 0:
        message(caught, path, "repair or remove it", "truncated")
    else:
        assert f"{path}\n" in str(caught.value), "torch adds the worker's traceback"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("resolution", 0), ("channels", 2), ("channels", 4), ("val_fraction", 0.0), ("val_fraction", 0.5)],
)
def test_bad_settings_are_named(tmp_path: Path, setting: str, value: float) -> None:
    numbered(tmp_path, ["0.png", "1.png", "2.png"])
    settings: dict[str, Any] = {"resolution": 8, setting: value}
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), **settings)
    message(caught, f"data.{setting}", value)
