"""What a dataset holds, said and drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.contact_sheet import choose_examples, draw_contact_sheet, spread
from diffusion_lit.data import DigitsData
from diffusion_lit.data.batch import ArrayImages
from diffusion_lit.picture import title_font
from tests import streams
from tests.data.prepared_set import data_module, numbers, prepare, settings, write_folder
from tests.launch import ALL_DIGITS, read_by_bash, run_forked


def test_it_says_what_a_prepared_set_holds(tmp_path: Path) -> None:
    prepare(write_folder(tmp_path / "folder", 31), tmp_path / "set")
    done = run_forked("inspect", f"data.root={tmp_path / 'set'}", f"out={tmp_path / 'out'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["train:", "31", "images", "of", "3", "x", "4", "x", "4"] in lines
    assert ["class", "0", "16", "2", "2"] in lines and ["class", "1", "15", "1", "1"] in lines
    assert ["source:", str(tmp_path / "folder")] in lines and f"{tmp_path / 'out' / 'contact_sheet.png'}" in done.stdout
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > 400 and np.asarray(sheet).std() > 20


def test_a_folder_of_images_is_answered_with_commands_that_read_it(tmp_path: Path) -> None:
    """And not with one that would prepare a set into it."""
    images = write_folder(tmp_path / "my images", 4)
    done = run_forked("inspect", f"data.root={images}", "out=seen", cwd=tmp_path)
    assert done.returncode == 1
    commands = [line.strip() for line in done.stderr.splitlines() if "-m diffusion_lit." in line]
    assert len(commands) == 2
    for command in commands:
        _, module, *arguments = read_by_bash(command.replace("ANOTHER_FOLDER", "'a set'"))
        name = module.rpartition(".")[2]
        done = run_forked(name, *arguments, *(["out=seen"] if name == "inspect" else []), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a set" / "manifest.json").is_file() and (tmp_path / "seen" / "contact_sheet.png").is_file()


@pytest.mark.parametrize("kind", ["image_folder", "stream", "memmap"])
def test_counts_and_examples_are_those_of_the_classes(tmp_path: Path, kind: str) -> None:
    """A row for each class with its own images, spread evenly; the counts are the same however a set is read."""
    prepare(write_folder(tmp_path / "folder", 31), tmp_path / "set")
    data = data_module(kind, tmp_path)
    assert data.class_counts("train") == [16, 15] and data.class_counts("val") == [2, 1]
    rows = choose_examples(data, "train", rows=5, columns=4)
    assert list(rows) == ["class 0 (16)", "class 1 (15)"]
    assert {i % 2 for i in numbers(rows["class 0 (16)"])} == {0} and len(set(numbers(rows["class 0 (16)"]))) == 4
    assert {i % 2 for i in numbers(rows["class 1 (15)"])} == {1}


@pytest.mark.parametrize("kind", streams.KINDS)
def test_examples_of_a_stream_are_those_of_their_classes(tmp_path: Path, kind: str) -> None:
    """Which gives every image once, and does not go back to any."""
    pytest.importorskip({"hugging_face": "datasets"}.get(kind, kind))
    streams.write_stream(kind, tmp_path / "in")
    rows = choose_examples(streams.stream(kind, tmp_path / "in"), "train", rows=3, columns=4)
    assert list(rows) == [f"class {i}" if kind == "hugging_face" else str(i) for i in range(3)]
    for label, images in enumerate(rows.values()):
        assert len(images) == 4 and {n % 3 for n in images[:, 0, 0, 0].tolist()} == {label}


def test_sets_without_classes_and_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DigitsData, "load", ALL_DIGITS)
    data = DigitsData()
    data.setup()
    assert list(choose_examples(data, "val", rows=3, columns=2)) == ["0 (18)", "4 (18)", "9 (18)"]
    data.class_names = None
    rows = choose_examples(data, "val", rows=3, columns=4)
    assert list(rows) == ["0 ...", "65 ...", "130 ..."] and all(len(row) == 4 for row in rows.values())
    assert spread(torch.arange(100), 3).tolist() == [0, 50, 99] and spread(torch.arange(2), 3).tolist() == [0, 1]


@dataclass(eq=False)
class Stream:
    """Images whose labels are known once they are read."""

    images: Tensor
    hidden: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.hidden[indices]


@pytest.mark.parametrize("listed", [True, False])
def test_of_many_classes_those_that_have_images_are_shown(listed: bool) -> None:
    """And of images that all lack one, any: also where labels are known only from images that were read."""

    def data_of(labels: list[int]) -> DigitsData:
        data = DigitsData()
        data.class_names = [f"class {i}" for i in range(150)]
        images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        data.splits = {"test": (ArrayImages if listed else Stream)(images, torch.tensor(labels))}
        return data

    rows = choose_examples(data_of([-1, 77, 3, 77, 149]), "test", rows=2, columns=2)
    assert [images[:, 0, 0, 0].tolist() for images in rows.values()] == [[2], [4]]
    assert [name.split(" (")[0] for name in rows] == ["class 3", "class 149"]
    rows = choose_examples(data_of([-1] * 5), "test", rows=2, columns=2)
    assert [images[:, 0, 0, 0].tolist() for images in rows.values()] == [[0, 1], [3, 4]]


def test_names_of_classes_are_drawn_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """In a font that has their letters, or with a warning of ours; a dollar is a dollar."""
    monkeypatch.setattr(title_font, "others", list)
    monkeypatch.setattr(title_font, "BOXES", [])
    title_font.file_for.cache_clear()
    draw_contact_sheet(
        {name: torch.zeros(2, 1, 8, 8, dtype=torch.uint8) for name in ("$\\x$", "日本")}, tmp_path / "a.png"
    )
    title_font.file_for.cache_clear()
    assert [m.partition(":")[0] for m in caplog.messages] == ["no font of this machine has all of 日本"]
    assert (tmp_path / "a.png").is_file() and not recwarn


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["split=all"], "split must be train, val or test, got all"),
        (["rows=0"], "rows and columns of at least 1"),
        ([], "data.root=DIR"),
        (["data.root=nowhere"], "diffusion_lit.prepare source=FOLDER"),
    ],
)
def test_user_errors_are_reported(tmp_path: Path, options: list[str], words: str) -> None:
    done = run_forked("inspect", *options, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_any_dataset_can_be_looked_at(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", 12)
    options = [f"data.{key}={value}" for key, value in settings("image_folder", tmp_path).items()]
    done = run_forked("inspect", "data=image_folder", *options, "split=val", f"out={tmp_path / 'out'}", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out" / "contact_sheet.png").is_file(), done.stderr
