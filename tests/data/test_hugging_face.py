"""Datasets of the Hugging Face hub, from folders in its format: exact where they are on this machine, else streamed."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusion_lit.data import HuggingFaceData
from diffusion_lit.source.hugging_face import Columns, choose_columns, choose_splits, sample_of
from diffusion_lit.source.layout import share_out
from tests.streams import VAL, as_rank, epoch_of, png, stream, write_parquet, write_stream

NUM_IMAGES = 61


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own, and no network to wait for."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write(root: Path, **splits: Any) -> Path:
    """A folder with splits of the images of these numbers."""
    for split, numbers in splits.items():
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", numbers)
    return root


def table(root: Path, rank: int = 0, world_size: int = 1, **options: Any) -> Any:
    options = {"resolution": 2, "channels": 1, "batch_size": 4, "num_workers": 0} | options
    return as_rank(HuggingFaceData(str(root), **options), rank, world_size)


def numbers(loader: Any) -> list[int]:
    return [n for batch in epoch_of(loader, 0) for n in batch]


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (3, 0), (2, 2)])
def test_a_table_s_images_come_once_in_an_epoch(tmp_path: Path, world_size: int, num_workers: int) -> None:
    write(tmp_path / "set", train=range(NUM_IMAGES), validation=VAL, test=range(100, 120))
    data = [table(tmp_path / "set", rank, world_size, num_workers=num_workers) for rank in range(world_size)]
    loaders = [each.train_dataloader() for each in data]
    for epoch in (0, 1):
        ranks = [[n for batch in epoch_of(loader, epoch) for n in batch] for loader in loaders]
        assert {len(rank) for rank in ranks} == {NUM_IMAGES // (4 * world_size) * 4}
        assert len(set().union(*ranks)) == sum(map(len, ranks)) and set().union(*ranks) <= set(range(NUM_IMAGES))
    for expected, loaders in (
        (VAL, [each.val_dataloader() for each in data]),
        (range(100, 120), [each.test_dataloader() for each in data]),
    ):
        assert sorted(n for loader in loaders for n in numbers(loader)) == list(expected)


def test_a_table_is_resumed_exactly(tmp_path: Path) -> None:
    write(tmp_path / "set", train=range(NUM_IMAGES), validation=VAL)
    whole = epoch_of(table(tmp_path / "set").train_dataloader(), 2)
    loader = table(tmp_path / "set", num_workers=2).train_dataloader()
    loader.batch_sampler.resume(2, 12)
    assert epoch_of(loader, 2) == whole[3:]


@pytest.mark.parametrize(
    ("there", "sizes"), [(("val", "test"), (54, 17, 3)), (("val",), (51, 17, 3)), ((), (55, 3, 3))]
)
def test_missing_splits_are_set_aside_from_train(
    tmp_path: Path, there: tuple[str, ...], sizes: tuple[int, int, int]
) -> None:
    more = {
        {"val": "validation", "test": "test"}[split]: {"val": VAL, "test": range(100, 103)}[split] for split in there
    }
    write(tmp_path / "set", train=range(NUM_IMAGES), **more)
    splits = [
        {split: numbers_in(images) for split, images in table(tmp_path / "set", seed=seed).splits.items()}
        for seed in (0, 1)
    ]
    assert splits[0] == splits[1], "a split does not depend on the run's seed"
    chosen = splits[0]
    assert sum(map(len, chosen.values())) == len(set().union(*chosen.values())), "no image is in two"
    from_train = [n for numbers in chosen.values() for n in numbers if n < NUM_IMAGES]
    assert sorted(from_train) == list(range(NUM_IMAGES))
    aside = 3 * (2 - len(there))
    assert len(chosen["train"]) == NUM_IMAGES - aside


def numbers_in(images: Any) -> list[int]:
    found, _ = images.fetch(list(range(len(images))))
    return [int(n) for n in found[:, 0, 0, 0]]


def test_facts_are_known_at_once(tmp_path: Path) -> None:
    write(tmp_path / "set", train=range(5))
    for streaming in (False, True):
        data = HuggingFaceData(
            str(tmp_path / "set"), resolution=7, streaming=streaming, epoch_size=3 if streaming else None
        )
        assert (data.resolution, data.channels, data.num_classes) == (7, 3, 3)
        assert data.class_names == ["class 0", "class 1", "class 2"]
        assert not list((tmp_path / "cache").rglob("*.arrow")), "nothing has been downloaded"


def test_images_without_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", range(30), classes=None)
    data = table(tmp_path / "set")
    assert data.num_classes is None and data.class_names is None
    batch = next(iter(data.train_dataloader()))
    assert batch.condition.label is None and batch.images.shape == (4, 1, 2, 2)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_files_is_read_too(tmp_path: Path, streaming: bool) -> None:
    """Rows then have a path, and no bytes."""
    for split, name in (("train", "a"), ("train", "b"), ("test", "a")):
        for i in range(5):
            path = tmp_path / "set" / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 3), (10 * i, 0, 0)).save(path)
    options = {"epoch_size": 4, "val_size": 2} if streaming else {}
    data = table(tmp_path / "set", channels=3, resolution=3, streaming=streaming, **options)
    assert data.class_names == ["a", "b"]
    images, labels = data.splits["train"].fetch([0, 1, 2, 3])
    assert images.shape == (4, 3, 3, 3) and labels.dtype == torch.int64


@pytest.mark.parametrize(("val_size", "left"), [(1, 25), (7, 19), (10, 16), (25, 1)])
def test_a_stream_without_a_split_for_validation_sets_its_first_images_aside(
    tmp_path: Path, val_size: int, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Shards of 1, 9, 3, 7, 2 and 4 images: the place is in one, or between two."""
    write_stream("hugging_face", tmp_path)
    (tmp_path / "data" / "validation-00000-of-00001.parquet").unlink()
    with caplog.at_level(logging.INFO):
        data = stream("hugging_face", tmp_path, epoch_size=left, batch_size=1, val_size=val_size)
    assert numbers_in(data.splits["val"]) == list(range(val_size))
    assert sorted(numbers(data.train_dataloader())) == list(range(val_size, 26))
    assert "no split test: the validation images are the test images too" in caplog.text


def test_validation_cannot_take_everything(tmp_path: Path) -> None:
    write(tmp_path / "set", train=range(5))
    with pytest.raises(ValueError, match=r"all of its 5 images would be set aside: data\.val_size=5 must be less"):
        stream("hugging_face", tmp_path / "set", val_size=5)
    with pytest.raises(ValueError, match="has 2 images to train on, too few to set any aside"):
        write(tmp_path / "two", train=range(2))
        table(tmp_path / "two")


def test_more_loading_processes_than_shards_take_every_nth_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_stream("hugging_face", tmp_path, [8, 5])
    shares = []
    for rank in range(3):
        loader = stream("hugging_face", tmp_path, rank, 3, num_workers=2, epoch_size=36).train_dataloader()
        batches = epoch_of(loader, 0)
        assert len(batches) == 6
        shares += [{n for batch in batches[worker::2] for n in batch} for worker in range(2)]
    assert sum(map(len, shares)) == len(set.union(*shares)) == 13
    assert "has 2 shards for 3 processes x 2 loading processes" in caplog.text
    with pytest.raises(ValueError, match=r"no image in its share .* use fewer data\.num_workers"):
        list(stream("hugging_face", tmp_path, 19, 20).splits["train"].fetch([0]))


def test_the_size_of_an_epoch(tmp_path: Path) -> None:
    """What the dataset says, less what is set aside; an error where it says nothing."""
    write(tmp_path, train=range(26))
    with pytest.raises(ValueError, match=r"does not say how many images it has: give data\.epoch_size="):
        stream("hugging_face", tmp_path, epoch_size=None)
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - {name: picture, dtype: image}\n"
        "  - {name: kind, dtype: {class_label: {names: [a, b, c]}}}\n"
        "  splits:\n  - {name: train, num_bytes: 1, num_examples: 26}\n"
        "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n---\n"
    )
    assert len(stream("hugging_face", tmp_path, epoch_size=None, val_size=6).splits["train"]) == 20
    with pytest.raises(ValueError, match=r"data\.epoch_size=5 needs data\.streaming=true"):
        table(tmp_path, epoch_size=5)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["nobody/nothing", "./no/folder"])
def test_a_dataset_that_is_not_there(tmp_path: Path, name: str, streaming: bool) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        HuggingFaceData(name, streaming=streaming, epoch_size=1 if streaming else None)
    for word in (f"the dataset {name} is not", str(tmp_path / "cache"), "Check the name", "HF_HOME"):
        assert word in str(caught.value)


def test_an_unknown_configuration_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, train=range(5))
    with pytest.raises(ValueError, match=r"config=large cannot be opened: .*\['default'\]"):
        table(tmp_path, config="large")


def test_no_name_and_bad_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"say which dataset: data\.name="):
        HuggingFaceData(None)
    with pytest.raises(ValueError, match=r"data\.val_fraction .* got 0\.5"):
        HuggingFaceData("a", val_fraction=0.5)
    with pytest.raises(ValueError, match=r"data\.channels must be a whole number of at least 1: .*, got 0"):
        HuggingFaceData("a", channels=0)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-lit\[hugging_face\]'"):
        HuggingFaceData("a")


def test_columns_are_found_or_chosen() -> None:
    from datasets import ClassLabel, Features, Value
    from datasets import Image as ImageFeature

    one = Features({"photo": ImageFeature(), "text": Value("string"), "fine": ClassLabel(names=["a"])})
    assert choose_columns("x", one, (None, None)) == Columns("photo", "fine", ["a"])
    assert choose_columns("x", one, ("photo", "fine")) == Columns("photo", "fine", ["a"])
    several = Features(one | {"mask": ImageFeature(), "coarse": ClassLabel(names=["b"])})
    assert choose_columns("x", several, ("mask", "coarse")) == Columns("mask", "coarse", ["b"])
    for features, image, label, words in (
        (
            several,
            None,
            "fine",
            r"several columns of type Image; choose one with data\.image_column=: .*mask \(Image\)",
        ),
        (several, "mask", None, r"several columns of type ClassLabel; choose one with data\.label_column="),
        (
            one,
            "text",
            None,
            r"data\.image_column=text is not a column of type Image of x, which has photo \(Image\), text",
        ),
        (one, None, "text", r"data\.label_column=text is not a column of type ClassLabel"),
        (Features({"text": Value("string")}), None, None, r"x has no column of type Image; .*text \(Value\)"),
        (None, None, None, "does not say what its columns are"),
    ):
        with pytest.raises(ValueError, match=words):
            choose_columns("x", features, (image, label))


def test_splits_are_found_or_chosen() -> None:
    everything = ["train", "validation", "test", "extra"]
    assert choose_splits("x", everything, None, None) == {"train": "train", "val": "validation", "test": "test"}
    assert choose_splits("x", everything, "extra", "validation")["val"] == "extra"
    assert choose_splits("x", ["train"], None, None) == {"train": "train", "val": "train", "test": "train"}
    with pytest.raises(ValueError, match=r"data\.val_split=val is not one of the splits of x: train, test"):
        choose_splits("x", ["train", "test"], "val", None)
    with pytest.raises(ValueError, match="x needs a split named train; there are full"):
        choose_splits("x", ["full"], None, None)


@pytest.mark.parametrize("val", ["val", "valid", "validation", None])
@pytest.mark.parametrize("test", ["test", None])
def test_training_and_preparing_find_the_same_splits(val: str | None, test: str | None) -> None:
    there = [split for split in ("train", val, test, "extra") if split]
    places = share_out(dict.fromkeys(there, 100), "x", 0.1)
    prepared = {split: {name for name, _ in found} for split, found in places.items()}
    chosen = choose_splits("x", there, None, None)
    assert {split: {name} for split, name in chosen.items()} == prepared
    assert chosen == {"train": "train", "val": val or "train", "test": test or "train"}


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_cannot_be_trained_on_are_named(tmp_path: Path, streaming: bool) -> None:
    import datasets

    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    good = [{"bytes": png(n), "path": None} for n in range(4)]
    rows = (
        ({"bytes": b"no image", "path": None}, 0, "cannot read this file as an image(.|\n)*row 2 "),
        (None, 0, "row 2 .*has no image"),
        (good[0], -1, "row 2 .*has label -1, which is not one of the 3 classes"),
    )
    for number, (bad, label, words) in enumerate(rows):
        folder = tmp_path / str(number) / "data"
        folder.mkdir(parents=True)
        columns = {"picture": [*good[:2], bad, good[3]], "kind": [0, 1, label, 1]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "validation-00000-of-00001.parquet")
        write_parquet(folder / "train-00000-of-00001.parquet", range(4))
        with pytest.raises(ValueError, match=words):
            options = {"epoch_size": 4} if streaming else {}
            data = table(folder.parent, streaming=streaming, **options)
            data.splits["val"].fetch([0, 1, 2, 3])


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write_stream("hugging_face", tmp_path)
    data = stream("hugging_face", tmp_path, epoch_size=26, batch_size=1)
    path = next((tmp_path / "data").glob("train-00003-*"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"shard 3 of .*\[train\] cannot be read after row 0"):
        list(data.train_dataloader())


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the file of row 2, .*gone\.png, cannot be read"):
        sample_of({"bytes": None, "path": str(tmp_path / "gone.png")}, 0, 2, "row 2")
