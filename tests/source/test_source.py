"""The same images from wherever they come make the same prepared set."""

import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from diffusion_lit.preparation.settings import open_source
from diffusion_lit.preparation.workspace import Workspace
from diffusion_lit.source.archive import COMPRESSED, TarSource, ZipSource
from diffusion_lit.source.base import UNLABELLED, Source
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.hugging_face import HuggingFaceSource
from diffusion_lit.source.layout import share_out
from diffusion_lit.source.torchvision import TorchvisionSource
from tests.pictures import named, pixels, prepare, reading, settings, stored, write_folder, write_tar, write_zip

FILES = named()
JUNK = {
    "__MACOSX/cat/._000.png": b"resource fork",
    "cat/._000.png": b"resource fork",
    ".DS_Store": b"Finder",
    "README.txt": b"about",
}


def wrapped(files: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {f"{folder}{name}": data for name, data in files.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str] | None, dict[str, list[int] | None]]:
    folder = tmp_path_factory.mktemp("expected")
    return facts(FolderSource(write_folder(folder / "in", FILES), 0.2), folder / "out")


def facts(source: Source, out: Path) -> tuple[str, list[str] | None, dict[str, list[int] | None]]:
    """The content, the names and the labels of what is prepared."""
    manifest = prepare(source, out)
    return manifest.content_hash, manifest.class_names, {split: stored(out, split)[1] for split in manifest.splits}


ARCHIVES = {
    "a.zip": FILES,
    "wrapped.zip": wrapped(FILES, "photos/"),
    "twice.zip": wrapped(FILES, "photos/more/"),
    "dots.zip": wrapped(FILES, "./"),
    "dots_wrapped.zip": wrapped(FILES, "./photos/"),
    "windows.zip": {name.replace("/", "\\"): data for name, data in FILES.items()},
    "junk.zip": FILES | JUNK,
    "junk_beside.zip": wrapped(FILES, "photos/") | JUNK,
    "a.tar": FILES,
    "wrapped.tar": wrapped(FILES, "photos/"),
    "dots.tar": wrapped(FILES, "./"),
    "dots_wrapped.tar": wrapped(FILES, "./photos/"),
    "junk.tar": FILES | JUNK,
    "junk_beside.tar": wrapped(FILES, "./photos/") | wrapped(JUNK, "./"),
    "a.tar.gz": FILES,
    "a.tgz": wrapped(FILES, "photos/"),
    "a.tar.bz2": FILES,
    "a.tar.xz": wrapped(FILES, "./"),
    "A.TAR.GZ": FILES,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_the_folder_that_it_holds(name: str, tmp_path: Path, expected: object) -> None:
    suffix = Path(name).suffix.lower()
    write = tmp_path / name
    if suffix == ".zip":
        write_zip(write, ARCHIVES[name])
    else:
        write_tar(write, ARCHIVES[name], {".tar": "w", ".tgz": "w:gz"}.get(suffix, f"w:{suffix[1:]}"))
    out = tmp_path / "out"
    source = open_source(settings(source=str(write), out=str(out)), Workspace(out))
    junk = [entry.removeprefix("./") for entry in ARCHIVES[name] if not entry.endswith(".png") or "._" in entry]
    assert sorted(source.left_out) == sorted(junk)
    assert source.description == str(write)
    assert facts(source, out) == expected
    assert not (out / ".prepare").exists(), "neither records nor the decompressed archive are kept"


def test_a_folder_may_hold_the_same_junk(tmp_path: Path, expected: object) -> None:
    source = FolderSource(write_folder(tmp_path / "in", FILES | JUNK), 0.2)
    assert sorted(source.left_out) == sorted(JUNK)
    assert facts(source, tmp_path / "out") == expected


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("splits", [["train", "valid", "test"], ["train"]])
def test_split_folders_in_archives(kind: str, splits: list[str], tmp_path: Path) -> None:
    """Also where all lie in one folder `train`, which says something, unlike any other that they have in common."""
    files = {f"{split}/{name}": data for split in splits for name, data in FILES.items()}
    folder = facts(FolderSource(write_folder(tmp_path / "in", files), 0.2), tmp_path / "expected")
    source: Source
    if kind == "folder":
        source = FolderSource(write_folder(tmp_path / "elsewhere", files), 0.2)
    elif kind == "zip":
        source = ZipSource(write_zip(tmp_path / "a.zip", wrapped(files, "photos/")), 0.2)
    else:
        source = TarSource(write_tar(tmp_path / "a.tar", wrapped(files, "./photos/")), 0.2)
    assert facts(source, tmp_path / "out") == folder and folder[1] == ["cat", "dog", "emu"]


@pytest.mark.parametrize("prefix", ["", "./", "photos/"])
def test_a_label_file_in_an_archive(prefix: str, tmp_path: Path) -> None:
    flat = {f"images/{i}.png": data for i, data in enumerate(FILES.values())}
    rows = "".join(f"{name},{i % 2}\n" for i, name in enumerate(flat))
    files = wrapped(flat | {"labels.csv": f"file_name,label\n{rows}".encode()}, prefix)
    for source in (
        ZipSource(write_zip(tmp_path / "a.zip", files), 0.2),
        TarSource(write_tar(tmp_path / "a.tar", files), 0.2),
    ):
        assert source.class_names == ["0", "1"] and not source.left_out
        for entries in source.splits.values():
            assert all(entry.label == int(Path(entry.name).stem) % 2 for entry in entries)


def test_of_several_tar_members_of_one_name_the_last_counts(tmp_path: Path, expected: object) -> None:
    """`tar -r` appends what has changed; `tar -x` leaves the last."""
    path = write_tar(tmp_path / "a.tar", FILES | {"cat/000.png": b"an older one"})
    write_tar(path, {"./cat/000.png": FILES["cat/000.png"]}, "a")
    assert facts(TarSource(path, 0.2), tmp_path / "out") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not text")
def test_names_need_not_be_text(tmp_path: Path) -> None:
    files = {os.fsdecode(f"{i}".encode() + b"\xe9.png"): png for i, png in enumerate(FILES.values())}
    path = write_tar(tmp_path / "a.tar", files)
    broken = write_folder(tmp_path / "in", files | {os.fsdecode(b"\xff.png"): b"no image"})
    manifest = prepare(FolderSource(broken, 0.2), tmp_path / "out", max_unreadable=0.1)
    assert manifest.num_unreadable == 1 and b"\xff.png\t" in (tmp_path / "out" / "unreadable.txt").read_bytes()
    assert prepare(TarSource(path, 0.2), tmp_path / "tar").content_hash == manifest.content_hash


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_links_to_nothing_and_pipes_are_unreadable_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", FILES)
    (tmp_path / "in" / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "in" / "cat" / "pipe.png")
    manifest = prepare(tmp_path / "in", tmp_path / "out", max_unreadable=0.1)
    assert manifest.num_unreadable == 2
    report = (tmp_path / "out" / "unreadable.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in report) == ["cat/gone.png", "cat/pipe.png"]


def test_sources_travel_to_other_processes(tmp_path: Path) -> None:
    for source in (
        FolderSource(write_folder(tmp_path / "in", FILES), 0.2),
        ZipSource(write_zip(tmp_path / "a.zip", FILES), 0.2),
        TarSource(write_tar(tmp_path / "a.tar", FILES), 0.2),
    ):
        first = source.read("train", 0, reading())
        assert (pickle.loads(pickle.dumps(source)).read("train", 0, reading()) == first).all()


@pytest.mark.parametrize("name", ["a.rar", "a.png", "a"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a file must end in \.zip, \.tar") as caught:
        open_source(settings(source=str(tmp_path / name)), Workspace(tmp_path / "out"))
    assert all(suffix in str(caught.value) for suffix in COMPRESSED) and name in str(caught.value)


# torchvision.


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """CIFAR's format: pickled rows of 1024 red, 1024 green and 1024 blue bytes; one file for each split here."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng, written = np.random.default_rng(0), {}
    for name, count in (("train", 40), ("test", 7)):
        images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = rng.integers(0, 10, count).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": images.reshape(count, 3072), "labels": labels}))
        written[name] = (images, labels)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"kind {i}" for i in range(10)]}))
    cifar = torchvision.datasets.CIFAR10  # without its checksums, which only the real files have
    monkeypatch.setattr(cifar, "train_list", [["train", None]])
    monkeypatch.setattr(cifar, "test_list", [["test", None]])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return written


def test_torchvision_s_images_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path, monkeypatch)
    source = TorchvisionSource("CIFAR10", tmp_path, False, 0.2)
    manifest = prepare(source, tmp_path / "out", resolution=32)
    assert manifest.class_names == [f"kind {i}" for i in range(10)] and manifest.source == "torchvision:CIFAR10"
    images, labels = stored(tmp_path / "out", "test")
    assert np.array_equal(images, written["test"][0]) and labels == written["test"][1]
    numbers = {split: [int(e.name.rpartition("/")[2]) for e in source.splits[split]] for split in ("train", "val")}
    assert sorted(numbers["train"] + numbers["val"]) == list(range(40)) and numbers["val"] != list(range(8))
    for split, chosen in numbers.items():
        images, labels = stored(tmp_path / "out", split)
        assert chosen and np.array_equal(images, written["train"][0][chosen])
        assert labels == [written["train"][1][i] for i in chosen]
    assert facts(pickle.loads(pickle.dumps(source)), tmp_path / "again")[1] == manifest.class_names


def test_torchvision_s_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        TorchvisionSource("CIFAR10", tmp_path / "nowhere", False, 0.1)
    for part in ("CIFAR10", str(tmp_path / "nowhere"), "root=", "download=true"):
        assert part in str(caught.value)


def test_torchvision_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(FileNotFoundError, match=r"its download failed .*no network"):
        TorchvisionSource("CIFAR10", tmp_path, True, 0.1)


@pytest.mark.parametrize("name", ["CIFAR", "VisionDataset", "ImageFolder", "FakeData", "__all__", ""])
def test_torchvision_has_no_such_dataset(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"torchvision has no dataset {name} .*CIFAR10"):
        TorchvisionSource(name, tmp_path, False, 0.1)


@pytest.mark.parametrize(
    ("beside", "classes"),
    [
        ({"labels": np.array([0, 3, 1, 0, 2, 1])}, ["0", "1", "2", "3"]),  # SVHN
        ({"targets": [0, 3, 1, 0, 2, 1]}, ["0", "1", "2", "3"]),  # USPS
        ({"targets": torch.tensor([0, 3, 1, 0, 2, 1]), "classes": list("abcd")}, list("abcd")),  # MNIST
        ({"_labels": [0, 3, 1, None, 2, None]}, ["0", "1", "2", "3"]),  # CLEVR, whose test has none
        ({}, ["0", "1", "2"]),  # GTSRB
        ({"targets": []}, None),  # Kitti, where it has none
        ({"targets": ["boxes.txt"] * 6}, None),  # Kitti
    ],
)
def test_torchvision_s_classes_have_names_or_numbers(
    beside: dict[str, Any], classes: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signs:
        def __init__(self, root: Path, split: str, download: bool) -> None:
            if split in ("val", "validation"):
                raise ValueError("no such split")
            self.__dict__ |= beside

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.fromarray(pixels(index)), index % 3

    monkeypatch.setattr(torchvision.datasets, "Signs", Signs, raising=False)
    source = TorchvisionSource("Signs", tmp_path, False, 0.2)
    assert [name for name, _ in source.places["val"]] == ["valid"] * 6, "CelebA's name for it"
    assert source.class_names == classes
    expected = next(iter(beside.values())) if beside else [0, 1, 2] * 2
    known = [UNLABELLED if label is None else int(label) for label in expected] if classes else [UNLABELLED] * 6
    assert [entry.label for entry in source.splits["test"]] == known


def test_torchvision_s_datasets_without_a_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters:
        def __init__(self, root: Path, split: str, download: bool) -> None:
            raise ValueError(f"no split {split}")

    monkeypatch.setattr(torchvision.datasets, "Letters", Letters, raising=False)
    with pytest.raises(ValueError, match="Letters has no split train"):
        TorchvisionSource("Letters", tmp_path, False, 0.1)


def test_what_a_library_has_is_shared_out() -> None:
    places = share_out({"train": 500, "validation": 7}, "here", 0.1)
    assert places["val"] == [("validation", i) for i in range(7)]
    assert sorted(places["train"] + places["test"]) == [("train", i) for i in range(500)]
    # 500 independent names, a share of 0.1: 50 with a standard deviation of 6.7; four of them
    assert 23 <= len(places["test"]) <= 77
    assert set(share_out({"train": 900}, "here", 0.1)["val"]).isdisjoint(share_out({"train": 900}, "here", 0.1)["test"])
    assert share_out({"train": 3}, "here", 0.01) == {
        "train": [("train", 0)],
        "val": [("train", 2)],
        "test": [("train", 1)],
    }
    with pytest.raises(ValueError, match=r"here has too few images .* 3 is the least"):
        share_out({"train": 2}, "here", 0.1)
    with pytest.raises(ValueError, match="here needs a split named train; there are all"):
        share_out({"all": 3}, "here", 0.1)


# Hugging Face.


def write_table(root: Path, labels: list[int | None], names: tuple[str, ...] = ("a", "b")) -> Path:
    """A folder with the splits train and validation; image number n is pixels(n)."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))})
    cut = len(labels) * 3 // 4
    (root / "data").mkdir(parents=True)
    for split, numbers in (("train", range(cut)), ("validation", range(cut, len(labels)))):
        columns = {
            "picture": [{"bytes": named_png(n), "path": None} for n in numbers],
            "kind": [labels[n] for n in numbers],
        }
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(root / "data" / f"{split}-00000.parquet")
    return root


def named_png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number, (8, 8))).save(file, "png")
    return file.getvalue()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def test_hugging_face_s_images_and_labels(tmp_path: Path, offline: None) -> None:
    labels: list[int | None] = [n % 2 for n in range(24)]
    source = HuggingFaceSource(str(write_table(tmp_path / "set", labels)), (None, None), 0.2)
    manifest = prepare(source, tmp_path / "out", resolution=8)
    assert manifest.class_names == ["a", "b"]
    numbers = {
        split: [int(e.name.rpartition("/")[2]) + (18 if split == "val" else 0) for e in entries]
        for split, entries in source.splits.items()
    }
    assert numbers["val"] == list(range(18, 24)) and sorted(numbers["train"] + numbers["test"]) == list(range(18))
    for split, chosen in numbers.items():
        images, found = stored(tmp_path / "out", split)
        assert np.array_equal(images, np.stack([pixels(n, (8, 8)).transpose(2, 0, 1) for n in chosen]))
        assert found == [labels[n] for n in chosen]


def test_a_row_without_a_class_is_left_out(tmp_path: Path, offline: None) -> None:
    """ClassLabel keeps -1 for what is not labelled, which would pass for a class of its own."""
    labels: list[int | None] = [n % 2 for n in range(24)]
    labels[3], labels[5] = -1, None
    source = HuggingFaceSource(str(write_table(tmp_path / "set", labels)), (None, None), 0.2)
    manifest = prepare(source, tmp_path / "out", resolution=8, max_unreadable=0.2)
    report = (tmp_path / "out" / "unreadable.txt").read_text()
    assert manifest.num_unreadable == 2 and "train/000000003\t" in report and "train/000000005\t" in report
    counts = manifest.splits["train"].class_counts
    assert counts is not None and sum(counts) == manifest.splits["train"].count


def test_hugging_face_s_set_without_a_training_split(tmp_path: Path, offline: None) -> None:
    write_table(tmp_path / "set", [0] * 8)
    (tmp_path / "set" / "data" / "train-00000.parquet").unlink()
    with pytest.raises(ValueError, match="set needs a split named train; there are validation"):
        HuggingFaceSource(str(tmp_path / "set"), (None, None), 0.2)


def test_hugging_face_s_set_that_is_not_there(tmp_path: Path, offline: None) -> None:
    with pytest.raises(FileNotFoundError, match="nobody/nothing"):
        HuggingFaceSource("nobody/nothing", (None, None), 0.1)


def test_label_files_that_contradict_each_other(tmp_path: Path) -> None:
    files = {f"{i}.png": data for i, data in enumerate(named().values())}
    rows = "".join(f"{name},x\n" for name in files)
    lines = "".join(f'{{"file_name": "{name}", "label": "{"y" if name == "3.png" else "x"}"}}\n' for name in files)
    labels = {"labels.csv": f"file_name,label\n{rows}".encode(), "metadata.jsonl": lines.encode()}
    with pytest.raises(ValueError, match=r"labels\.csv and metadata\.jsonl give 3\.png different labels"):
        FolderSource(write_folder(tmp_path / "in", files | labels), 0.2)
