"""Folders of image files: every image is in its split and class, every mistake is named."""

import logging
import shutil
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from PIL import Image
from torch import Tensor

from diffusion_lit.augmentation import FlipAugmentation
from diffusion_lit.data import Batch, ImageDataModule, ImageFolderData, MemmapData
from diffusion_lit.source.folder import FolderSource
from tests.pictures import huge_png, pixels, prepare, solid

# Folders.


def numbered(folder: Path, names: list[str], first: int = 0) -> dict[str, int]:
    """Write an 8 x 8 image for each name, of the grey level that the name is given."""
    levels = {name: first + i for i, name in enumerate(names)}
    for name, level in levels.items():
        solid(folder / name, level)
    return levels


def contents(data: ImageDataModule) -> dict[str, dict[int, int | None]]:
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


@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("num_images", [3, 4, 6, 10, 15])
def test_small_folders_still_have_three_splits(tmp_path: Path, num_images: int, classes: int) -> None:
    numbered(tmp_path, [f"{f'{i % classes}/' if classes else ''}{i}.png" for i in range(num_images)])
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


def test_classes_are_in_one_order_however_they_are_read(tmp_path: Path) -> None:
    """Numbers as numbers; a run that goes over from the folder to the prepared set would learn other classes else."""
    levels = numbered(tmp_path / "in", [f"{i % 12}/{i}.png" for i in range(60)])
    folder = ImageFolderData(str(tmp_path / "in"), 8, channels=1, val_fraction=0.2)
    prepare(tmp_path / "in", tmp_path / "set", channels=1)
    prepared = MemmapData(str(tmp_path / "set"))
    assert folder.class_names == prepared.class_names == [str(i) for i in range(12)]
    assert contents(folder) == contents(prepared)
    assert all(label == level % 12 for inside in contents(folder).values() for level, label in inside.items())
    assert set(levels.values()) == {level for inside in contents(folder).values() for level in inside}


def test_a_label_file_says_the_classes(tmp_path: Path) -> None:
    levels = numbered(tmp_path, [f"{i}.png" for i in range(20)])
    rows = "".join(f"{name},{('dog', 'cat')[level % 2]}\n" for name, level in levels.items())
    (tmp_path / "labels.csv").write_text(f"file_name,label\n{rows}")
    data = ImageFolderData(str(tmp_path), 8, channels=1, val_fraction=0.2)
    assert data.class_names == ["cat", "dog"]
    assert {level: 1 - level % 2 for level in range(20)} == {
        k: v for x in contents(data).values() for k, v in x.items()
    }


def test_what_is_not_trained_on_is_said_at_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hidden files and what is not an image are no classes and no images; a class without training images is named."""
    for first, split in enumerate(("train", "val", "test")):
        numbered(tmp_path / split, ["cat/0.png", "dog/1.png"], 2 * first)
    solid(tmp_path / "val" / "emu" / "2.png", 6)
    for name in (".ipynb_checkpoints/0.png", "train/.ipynb_checkpoints/0.png", "__MACOSX/train/cat/._0.png", "._x.png"):
        solid(tmp_path / name, 99)
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"thumbnails")
    (tmp_path / "train" / "cat" / "IMG_1.heic").write_bytes(b"what Pillow does not read")
    data = ImageFolderData(str(tmp_path), 8, channels=1)
    assert data.class_names == ["cat", "dog", "emu"]
    assert contents(data) == {"train": {0: 0, 1: 1}, "val": {2: 0, 3: 1, 6: 2}, "test": {4: 0, 5: 1}}
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "left out 6 files: 5 hidden, such as ._x.png; 1 not readable as images, such as train/cat/IMG_1.heic",
        "classes of val without images in train (1): emu",
    ]
    caplog.clear()
    other = ImageFolderData(str(tmp_path), 8, channels=1)
    other.process = lambda: (1, 2)  # type: ignore[method-assign]
    other.setup()
    assert caplog.text == "", "one rank speaks"


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
def test_non_images_are_named_before_training(tmp_path: Path, name: str, content: bytes) -> None:
    path = broken_folder(tmp_path) / "val" / name
    path.write_bytes(content)
    data = ImageFolderData(str(tmp_path), 8)
    with pytest.raises(ValueError) as caught:
        data.setup()
    message(caught, path, "repair or remove it")


def test_whatever_its_header_shows_is_named_before_training(tmp_path: Path) -> None:
    """Each of these would end a run in the middle of an epoch; deep grey is fine."""
    train = broken_folder(tmp_path) / "train"
    bad = {"float.tiff": "32 bits", "icon.png": "not one of AVIF, BMP", "huge.png": "over the limit of 100000000"}
    Image.fromarray(np.ones((8, 8), np.float32)).save(train / "float.tiff")
    Image.new("RGB", (16, 16)).save(train / "icon.ico")
    (train / "icon.ico").rename(train / "icon.png")
    (train / "huge.png").write_bytes(huge_png(10_001, 10_000))
    (train / "deep.pgm").write_bytes(b"P5\n8 8\n1023\n" + np.full(64, 1023, ">u2").tobytes())
    data = ImageFolderData(str(tmp_path), 8, channels=1)
    with pytest.raises(ValueError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the huge one
        data.setup()
    text = message(caught, "cannot read 3 files as images; repair or remove them", *(train / name for name in bad))
    for name, words in bad.items():
        assert words in next(line for line in text.splitlines() if name in line)
    for name in bad:
        (train / name).unlink()
    assert 255 in contents(ImageFolderData(str(tmp_path), 8, channels=1))["train"]


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
    Image.fromarray(pixels(0, (64, 64))).save(path)
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
    [("resolution", 0), ("channels", 0), ("resolution", [8, 0]), ("val_fraction", 0.0), ("val_fraction", 0.5)],
)
def test_bad_settings_are_named(tmp_path: Path, setting: str, value: float) -> None:
    numbered(tmp_path, ["0.png", "1.png", "2.png"])
    settings: dict[str, Any] = {"resolution": 8, setting: value}
    with pytest.raises(ValueError) as caught:
        ImageFolderData(str(tmp_path), **settings)
    message(caught, f"data.{setting}", value)
