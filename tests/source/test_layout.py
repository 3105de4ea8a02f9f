"""Splits and classes from names and label files."""

import json
import os
import zlib
from pathlib import Path

import pytest

from diffusion_lit.source.file_kind import EXTENSIONS
from diffusion_lit.source.folder import FolderSource, walk
from diffusion_lit.source.label_file import read_labels
from diffusion_lit.source.layout import arrange, class_names_of, hashed_split

NAMES = [f"{kind}/{i:03d}.png" for kind in ("cat", "dog") for i in range(100)]


def split_of(files: dict[str, list[tuple[str, str | None]]]) -> dict[str, str]:
    """The split of each name."""
    return {name: split for split, inside in files.items() for name, _ in inside}


def folder_with(root: Path, names: list[str], labels: str = "", file: str = "labels.csv") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()  # sources read only names
    if labels:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(labels)
    return root


def labels_in(source: FolderSource) -> dict[str, str]:
    assert source.class_names is not None
    return {e.name: source.class_names[e.label] for entries in source.splits.values() for e in entries}


def test_first_folders_are_classes_and_every_image_is_in_one_split() -> None:
    files = arrange(reversed(NAMES), "here", 0.1)
    assert sorted(split_of(files)) == NAMES and sum(map(len, files.values())) == len(NAMES)
    for inside in files.values():
        assert inside and inside == sorted(inside)
        assert all(label == name[:3] for name, label in inside)
    assert class_names_of(files.values()) == ["cat", "dog"]


def test_loose_images_have_no_class() -> None:
    files = arrange([f"{i}.png" for i in range(20)], "here", 0.1)
    assert {label for inside in files.values() for _, label in inside} == {None}
    assert class_names_of(files.values()) is None


def test_loose_images_beside_class_folders_are_refused() -> None:
    with pytest.raises(ValueError, match=r"here has both class folders and 1 images outside any, such as stray\.png"):
        arrange([*NAMES, "stray.png"], "here", 0.1)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders_are_the_splits_by_any_usual_name(val: str) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in ("train", val, "test") for kind in "ab" for i in range(2)]
    files = arrange(names, "here", 0.1)
    expected = {name: {val: "val"}.get(name.split("/")[0], name.split("/")[0]) for name in names}
    assert split_of(files) == expected
    assert all(label == name.split("/")[1] for inside in files.values() for name, label in inside)


@pytest.mark.parametrize("there", [["train"], ["train", "validation"], ["train", "test"]])
def test_missing_splits_are_set_aside_from_train(there: list[str]) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in there for kind in "ab" for i in range(100)]
    files = arrange(names, "here", 0.1)
    assert sorted(split_of(files)) == sorted(names)
    for split, given in (("val", "validation"), ("test", "test")):
        inside = [name for name, _ in files[split]]
        if given in there:
            assert inside == sorted(name for name in names if name.startswith(given))
        else:
            # 200 independent names, a share of 0.1: 20 with a standard deviation of 4.2; four of them
            assert 3 <= len(inside) <= 37 and all(name.startswith("train/") for name in inside)


@pytest.mark.parametrize(("given", "missing"), [("val", "test"), ("test", "val")])
@pytest.mark.parametrize("num_train", [2, 10])
@pytest.mark.parametrize("val_fraction", [0.001, 0.499])
def test_a_split_that_is_given_keeps_its_images(given: str, missing: str, num_train: int, val_fraction: float) -> None:
    """Also where it is much larger than train, of which nothing, or all, falls into the missing split."""
    fallen = {"val": lambda h: h < val_fraction, "test": lambda h: val_fraction <= h < 2 * val_fraction}[missing]
    wanted = val_fraction > 0.1
    hashed = ((name, zlib.crc32(name.encode()) / 2**32) for name in (f"train/{i}.png" for i in range(1000)))
    train = [name for name, h in hashed if fallen(h) == wanted][:num_train]
    held_out = [f"{given}/{i}.png" for i in range(100)]
    files = arrange([*train, *held_out], "here", val_fraction)
    assert sorted(name for name, _ in files[given]) == sorted(held_out)
    assert files["train"] and files[missing] and len(files["train"]) + len(files[missing]) == num_train
    assert {name for split in ("train", missing) for name, _ in files[split]} == set(train)
    assert 1 in (len(files["train"]), len(files[missing]))


def test_a_hashed_split_stays_when_images_are_added() -> None:
    before = split_of(arrange(NAMES, "here", 0.1))
    after = split_of(arrange([*NAMES, *(f"cat/new{i}.png" for i in range(50))], "elsewhere", 0.1))
    assert {name: after[name] for name in NAMES} == before
    assert {hashed_split(name, 0.1) for name in NAMES} == {"train", "val", "test"}


def test_the_hash_is_of_the_name_alone() -> None:
    """Fixed for ever: another hash would move images of prepared sets from one split to another."""
    splits = [hashed_split(f"cat/{i}.png", 0.25) for i in range(8)]
    assert splits == ["train"] * 4 + ["val"] * 2 + ["test"] * 2  # CRC-32, computed apart


def test_splits_with_and_without_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="here/val has no class folders, but other splits have"):
        arrange(["train/a/0.png", "train/b/1.png", "val/0.png", "test/a/0.png"], "here", 0.1)


def test_images_beside_the_folder_train_are_refused() -> None:
    for stray in ("stray.png", "extra/0.png"):
        with pytest.raises(ValueError, match=f"images outside train, val and test, such as {stray}"):
            arrange(["train/a/0.png", "train/a/1.png", stray], "here", 0.1)


def test_splits_without_train_are_refused() -> None:
    """As classes, val and test would be learnt."""
    with pytest.raises(ValueError, match="here has a folder test, but no folder train"):
        arrange(["val/a/0.png", "test/a/0.png", "test/a/1.png"], "here", 0.1)
    assert class_names_of(arrange(["test/0.png", "tiger/0.png", "tiger/1.png"], "here", 0.1).values()) is not None


@pytest.mark.parametrize("split", ["val", "Validation", "test"])
@pytest.mark.parametrize("labels", [None, {}, {"cat/0.png": "1"}])
def test_a_split_beside_what_is_to_be_trained_on_is_refused(split: str, labels: dict[str, str] | None) -> None:
    """Its images would be trained on, as a class of their own or, where a label file names the classes, as any."""
    names = ["cat/0.png", "dog/0.png", f"{split}/cat/1.png", f"{split}/dog/1.png"]
    with pytest.raises(ValueError) as caught:
        arrange(names, "here", 0.1, labels)
    assert f"{split}/cat/1.png would be trained on: put what is beside it, such as cat/0.png" in str(caught.value)
    assert "into a folder train" in str(caught.value) and f"rename {split}" in str(caught.value)


def test_a_class_may_be_called_as_a_split_is() -> None:
    files = arrange(["cat/0.png", "dog/0.png", "test/0.png", "test/1.png"], "here", 0.1)
    assert class_names_of(files.values()) == ["cat", "dog", "test"]


@pytest.mark.parametrize("num_images", [3, 4, 7])
def test_few_images_still_fill_three_splits(num_images: int) -> None:
    files = arrange([f"{i}.png" for i in range(num_images)], "here", 0.01)
    assert all(files.values()) and sum(map(len, files.values())) == num_images


@pytest.mark.parametrize("num_images", [1, 2])
def test_too_few_images(num_images: int) -> None:
    with pytest.raises(ValueError, match=r"here has too few images .* 3 is the least"):
        arrange([f"{i}.png" for i in range(num_images)], "here", 0.1)
    with pytest.raises(ValueError, match=r"here has too few images .* aside for val; 2 is the least"):
        arrange(["train/0.png", *(f"test/{i}.png" for i in range(num_images))], "here", 0.1)


def test_no_images() -> None:
    with pytest.raises(ValueError, match=r"no images in here \(looked for .*\.png"):
        arrange([], "here", 0.1)


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_every_extension_counts_in_any_case(tmp_path: Path, extension: str) -> None:
    source = FolderSource(folder_with(tmp_path, [f"a{extension}", f"b{extension.upper()}", f"c{extension}"]), 0.1)
    assert sum(map(len, source.splits.values())) == 3 and not source.left_out


# Label files.


@pytest.mark.parametrize("name", ["file_name", "filename", "file", "path", "image"])
@pytest.mark.parametrize("label", ["label", "class", "class_name"])
def test_usual_header_words(name: str, label: str) -> None:
    text = f"width,{label},{name}\n8,cat,a.png\n8,dog,b.png\n"
    assert read_labels(text, "labels.csv") == {"a.png": "cat", "b.png": "dog"}
    lines = "\n".join(json.dumps({"width": 8, label: kind, name: file}) for file, kind in [("a.png", 3), ("b.png", 4)])
    assert read_labels(f"{lines}\n\n", "metadata.jsonl") == {"a.png": "3", "b.png": "4"}


def test_quoted_names_with_commas() -> None:
    assert read_labels('file_name,label\n"a, b.png","x ""y"""\n', "labels.csv") == {"a, b.png": 'x "y"'}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_where_files_end_them(mark: str, end: str) -> None:
    """At none of what `str.splitlines` takes for an end, and JSON and CSV for a letter like others."""
    rows = [(f"a{mark}b.png", "cat"), ("c.png", f"big{mark}cat")]
    text = end.join(["file_name,label", *(f"{name},{label}" for name, label in rows)])
    assert read_labels(text, "labels.csv") == dict(rows)
    if mark > " ":  # the others are escaped in JSON
        lines = [json.dumps({"file_name": name, "label": label}, ensure_ascii=False) for name, label in rows]
        assert read_labels(end.join(lines), "metadata.jsonl") == dict(rows)


def test_a_quoted_value_may_have_lines() -> None:
    assert read_labels('file_name,label\na.png,"big\ncat"\n', "labels.csv") == {"a.png": "big\ncat"}


@pytest.mark.parametrize(
    ("text", "file", "words"),
    [
        ("id,kind\n1,cat\n", "labels.csv", "needs a column file_name or .* it has id, kind"),
        ("file_name,kind\na.png,cat\n", "labels.csv", "one of label, class, class_name; it has file_name, kind"),
        ("", "labels.csv", "it has nothing"),
        ("file_name,label\na.png,cat\nb.png\n", "labels.csv", "row 2 lacks file_name or label"),
        ("file_name,label\na.png,cat\na.png,dog\n", "labels.csv", "a.png is labelled both cat and dog"),
        ('{"file_name": "a.png", "label": 1}\n{"file_name": ', "metadata.jsonl", "metadata.jsonl cannot be read"),
        ('{"file_name": "a.png", "label": 1}\n{"label": 1}', "metadata.jsonl", "row 2 lacks"),
        ('{"file_name": "a.png", "label": 1}\n[1]', "metadata.jsonl", "row 2 lacks"),
        ('["a.png", 1]', "metadata.jsonl", "it has nothing"),
        ('{"file_name": "a.png", "label": null}', "metadata.jsonl", "row 1 lacks"),
        ('{"file_name": "a.png", "label": ""}', "metadata.jsonl", "row 1 lacks"),
        ("file_name,label\na.png,cat\nb.png,\n", "labels.csv", "row 2 lacks file_name or label"),
        ("file_name,label\n,cat\n", "labels.csv", "row 1 lacks file_name or label"),
        ('{"labels": [["a.', "dataset.json", "dataset.json cannot be read"),
        ('{"labels": [["a.png"]]}', "dataset.json", r"should be \{.labels.: "),
        ('{"labels": 3}', "dataset.json", r"should be \{.labels.: "),
        ('{"labels": [["a.png", "cat"]]}', "dataset.json", "the class of a.png is 'cat', and should be a number"),
        ('{"labels": [["a.png", -1]]}', "dataset.json", "the class of a.png is -1"),
    ],
)
def test_a_label_file_that_says_too_little_is_refused(text: str, file: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(text, file)
    assert file in str(caught.value)


def test_edm_s_labels() -> None:
    """Its folders, of which each has the next thousand images, are not classes, with labels or without."""
    names = [f"{i // 2:05d}/img{i:08d}.png" for i in range(6)]
    text = json.dumps({"labels": [[name, i] for i, name in enumerate(names)]})
    assert read_labels(text, "dataset.json") == {name: str(i) for i, name in enumerate(names)}
    assert read_labels('{"labels": null}', "dataset.json") == {}
    without = arrange(names, "here", 0.1, {})
    assert class_names_of(without.values()) is None and sum(map(len, without.values())) == 6


def test_another_program_s_dataset_json_is_left_out(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)]
    for text in ('{"name": "my set", "licence": "CC0"}', "[1, 2]"):
        source = FolderSource(folder_with(tmp_path, names, text, "dataset.json"), 0.1)
        assert source.class_names == ["cat", "dog"] and list(source.left_out) == ["dataset.json"]
        assert "left out 1 file:" in source.remarks()[0]


def test_a_duplicate_that_agrees_is_accepted() -> None:
    assert read_labels("file_name,label\na.png,cat\n./a.png,cat\n", "labels.csv") == {"a.png": "cat"}


def test_a_label_file_takes_the_place_of_folders(tmp_path: Path) -> None:
    names = [f"x/{i}.png" for i in range(6)]
    text = "\ufefffile_name,label\n" + "".join(f"{name},{int(name[2]) % 2}\n" for name in names)  # Excel's BOM
    source = FolderSource(folder_with(tmp_path, names, text), 0.1)
    assert source.class_names == ["0", "1"]
    assert labels_in(source) == {name: str(int(name[2]) % 2) for name in names}
    assert not source.left_out


def test_names_in_a_label_file_are_below_its_folder(tmp_path: Path) -> None:
    """As in the splits of Hugging Face's image folders: metadata.jsonl in each."""
    for split in ("train", "validation", "test"):
        names = [f"{split}/{i}.png" for i in range(3)]
        lines = "\n".join(json.dumps({"file_name": f"{i}.png", "label": f"{split[0]}{i}"}) for i in range(3))
        folder_with(tmp_path, names, lines, f"{split}/metadata.jsonl")
    source = FolderSource(tmp_path, 0.1)
    expected = {f"{split}/{i}.png": f"{split[0]}{i}" for split in ("train", "validation", "test") for i in range(3)}
    assert labels_in(source) == expected
    assert {split: len(entries) for split, entries in source.splits.items()} == {"train": 3, "val": 3, "test": 3}


def test_an_image_without_a_label_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, [f"{i}.png" for i in range(5)], "file_name,label\n0.png,a\n1.png,a\n2.png,b\n")
    with pytest.raises(ValueError, match=r"2 images of .* have no label in its label file, such as 3\.png"):
        FolderSource(tmp_path, 0.1)


def test_a_label_without_an_image_makes_no_class(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{kind}\n" for i, kind in enumerate("aabx"))
    source = FolderSource(folder_with(tmp_path, ["0.png", "1.png", "2.png"], f"file_name,label\n{rows}"), 0.1)
    assert source.class_names == ["a", "b"]


def test_a_label_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, ["0.png", "1.png", "2.png"])
    (tmp_path / "labels.csv").write_bytes(b"file_name,label\n\xff.png,a\n")
    with pytest.raises(ValueError, match=r"labels\.csv is not UTF-8 text"):
        FolderSource(tmp_path, 0.1)


def test_whole_numbers_stay_themselves(tmp_path: Path) -> None:
    """Classes 0 to 11 keep their numbers, for which sorting by letters would put 10 before 2."""
    names = [f"{i}.png" for i in range(24)]
    rows = "".join(f"{name},{i % 12}\n" for i, name in enumerate(names))
    source = FolderSource(folder_with(tmp_path, names, f"file_name,label\n{rows}"), 0.1)
    assert source.class_names == [str(i) for i in range(12)]
    for entries in source.splits.values():
        assert all(entry.label == int(entry.name[:-4]) % 12 for entry in entries)


def test_classes_are_in_one_order_whatever_their_names() -> None:
    def order(*names: str) -> list[str] | None:
        return class_names_of([[(f"{i}.png", name) for i, name in enumerate(names)]])

    assert order("10", "9", "x") == ["10", "9", "x"] and order("10", "9") == ["9", "10"]
    names = [str(i).zfill(width) for i in range(4) for width in (1, 2, 3)]
    assert order(*names) == order(*reversed(names)) == sorted(names, key=lambda name: (int(name), name))


# What a folder may hold.


def test_a_link_back_up_does_not_go_round_for_ever(tmp_path: Path) -> None:
    folder_with(tmp_path, ["a/0.png", "a/1.png", "b/2.png"])
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert sorted(path.name for path in walk(tmp_path)) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(("name", "refused"), [("b", True), (".trash", False), ("lost+found", False)])
def test_a_folder_that_cannot_be_listed_is_named(
    name: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, the classes that follow would have other numbers. Hidden folders are left out anyhow."""
    folder_with(tmp_path, ["a/0.png", "a/1.png", f"{name}/2.png", "c/3.png"])
    scandir = os.scandir

    def scan(path: str) -> object:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    if refused:
        with pytest.raises(ValueError, match=rf"the folder {tmp_path / name} cannot be listed \(Permission denied\)"):
            FolderSource(tmp_path, 0.1)
    else:
        assert FolderSource(tmp_path, 0.1).class_names == ["a", "c"]


def test_hidden_files_are_left_out_and_listed(tmp_path: Path) -> None:
    names = ["a/0.png", "a/1.png", "b/2.png", "b/._2.png", ".cache/3.png", "b/notes.txt", "Thumbs.db"]
    source = FolderSource(folder_with(tmp_path, names), 0.1)
    assert sorted(source.left_out) == [".cache/3.png", "Thumbs.db", "b/._2.png", "b/notes.txt"]
    assert source.class_names == ["a", "b"]
