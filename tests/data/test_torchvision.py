"""MNIST, Fashion-MNIST and CIFAR-10, on tiny files in their own formats."""

import pickle
import struct
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from torch import Tensor

from diffusion_lit.data import ImageDataModule, TorchvisionData

NUM_TRAIN, NUM_TEST = 60, 12


class Raw(NamedTuple):
    """What was written: images uint8 [N, C, H, W], number i having i at its upper left, and labels [N]."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def draw(channels: int, size: int) -> Raw:
    rng = np.random.default_rng(0)
    arrays = []
    for num_images in (NUM_TRAIN, NUM_TEST):
        images = rng.integers(0, 256, (num_images, channels, size, size), dtype=np.uint8)
        images[:, 0, 0, 0] = np.arange(num_images)
        arrays += [images, rng.integers(0, 10, num_images)]
    return Raw(*arrays)


def write_idx(root: Path, dataset: str) -> Raw:
    """MNIST's format: big-endian magic number 8 (bytes) and dimensions, then the bytes."""
    raw = draw(1, 28)
    folder = root / dataset / "raw"
    folder.mkdir(parents=True)
    for prefix, images, labels in (("train", raw.train, raw.train_labels), ("t10k", raw.test, raw.test_labels)):
        header = struct.pack(">4B3I", 0, 0, 8, 3, len(images), 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    return raw


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Raw:
    """CIFAR's format: pickled rows of 1024 red, 1024 green and 1024 blue bytes, in five files and one."""
    raw = draw(3, 32)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    parts = list(zip(names, np.split(raw.train, 5), np.split(raw.train_labels, 5), strict=True))
    for name, images, labels in [*parts, ("test_batch", raw.test, raw.test_labels)]:
        rows = images.reshape(len(images), 3072)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": labels.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    cifar = torchvision.datasets.CIFAR10  # without its checksums, which only the real files have
    monkeypatch.setattr(cifar, "train_list", [[name, None] for name in names])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return raw


def write(root: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> Raw:
    return write_cifar(root, monkeypatch) if dataset == "CIFAR10" else write_idx(root, dataset)


def fetch_all(data: ImageDataModule, split: str) -> tuple[Tensor, Tensor]:
    images, labels = data.splits[split].fetch(list(range(len(data.splits[split]))))
    assert labels is not None
    return images, labels


def go_offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", fail)


@pytest.mark.parametrize(
    ("dataset", "resolution", "padding"),
    [("MNIST", 28, 0), ("MNIST", 32, 2), ("FashionMNIST", 32, 2), ("CIFAR10", 32, 0), ("CIFAR10", 36, 2)],
)
def test_images_and_labels_are_those_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, resolution: int, padding: int
) -> None:
    raw = write(tmp_path, dataset, monkeypatch)
    data = TorchvisionData(dataset, str(tmp_path), resolution, download=False, val_fraction=0.2, batch_size=5)
    data.setup()
    assert (data.resolution, data.channels, data.num_classes) == (resolution, raw.train.shape[1], 10)
    names = {"MNIST": ("0 - zero", "9 - nine"), "FashionMNIST": ("T-shirt/top", "Ankle boot")}
    assert data.class_names is not None and len(data.class_names) == 10
    assert (data.class_names[0], data.class_names[9]) == names.get(dataset, ("airplane", "truck"))
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]

    images, labels = fetch_all(data, "test")
    assert np.array_equal(images, np.pad(raw.test, around)) and np.array_equal(labels, raw.test_labels)

    taken: dict[str, list[int]] = {}
    for split in ("train", "val"):
        images, labels = fetch_all(data, split)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        numbers = taken[split] = images[:, 0, padding, padding].tolist()
        assert np.array_equal(images, np.pad(raw.train[numbers], around))
        assert np.array_equal(labels, raw.train_labels[numbers])
    assert len(taken["val"]) == 12 and sorted(taken["train"] + taken["val"]) == list(range(NUM_TRAIN))

    images = next(iter(data.val_dataloader())).images
    assert images.dtype == torch.uint8 and images.shape[1:] == (data.channels, resolution, resolution)


def test_the_split_is_the_same_for_every_seed(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    val = []
    for seed in (0, 0, 7):
        data = TorchvisionData("MNIST", str(tmp_path), 28, download=False, val_fraction=0.2, seed=seed)
        data.setup()
        val.append(fetch_all(data, "val")[0])
    assert torch.equal(val[0], val[1]) and torch.equal(val[0], val[2])
    numbers = val[0][:, 0, 0, 0].tolist()
    assert numbers != list(range(len(numbers))), "drawn at random, not the first ones: files may be sorted"


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_nothing_is_downloaded_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    write(tmp_path, dataset, monkeypatch)
    go_offline(monkeypatch, AssertionError("asked for a download"))
    data = TorchvisionData(dataset, str(tmp_path), 32, download=True)
    data.prepare_data()
    data.setup()
    assert len(data.splits["train"]) + len(data.splits["val"]) == NUM_TRAIN


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_missing_files_without_download(tmp_path: Path, dataset: str) -> None:
    data = TorchvisionData(dataset, str(tmp_path / "nowhere"), 32, download=False)
    data.prepare_data()
    with pytest.raises(FileNotFoundError) as caught:
        data.setup()
    for part in (dataset, str(tmp_path / "nowhere"), "data.root=", "data.download=true"):
        assert part in str(caught.value)
    assert not (tmp_path / "nowhere").exists(), "looking leaves nothing behind"


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "CIFAR10"])
@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("no network"), TimeoutError("no network")])
def test_download_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, error: Exception
) -> None:
    go_offline(monkeypatch, error)
    data = TorchvisionData(dataset, str(tmp_path), 32, download=True)
    with pytest.raises(FileNotFoundError) as caught:
        data.prepare_data()
    for part in (dataset, str(tmp_path), "no network", "data.root="):
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10, "the message fits a screen"


@pytest.mark.parametrize(
    ("dataset", "resolution"), [("MNIST", 27), ("MNIST", 31), ("FashionMNIST", 16), ("CIFAR10", 28), ("CIFAR10", 33)]
)
def test_resolutions_that_do_not_fit(tmp_path: Path, dataset: str, resolution: int) -> None:
    native = 32 if dataset == "CIFAR10" else 28
    with pytest.raises(ValueError, match=rf"data\.resolution={resolution} does not fit, {native} and {native + 4} do"):
        TorchvisionData(dataset, str(tmp_path), resolution)


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.dataset must be one of MNIST, FashionMNIST, CIFAR10, got 'SVHN'"):
        TorchvisionData("SVHN", str(tmp_path), 32)


@pytest.mark.parametrize("val_fraction", [0.0, 1.0, -0.1])
def test_val_fraction_out_of_range(tmp_path: Path, val_fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"data\.val_fraction must lie between 0 and 1, got {val_fraction}"):
        TorchvisionData("MNIST", str(tmp_path), 32, val_fraction=val_fraction)
