"""Where images come from: a folder, an archive, or a library's dataset."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from torch import Tensor

from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.layout import EXTENSIONS, LABEL_FILES, Named, arrange, read_labels, walk

__all__ = ["UNLABELLED", "Entry", "FileSource", "FolderSource", "Source", "class_names_of", "wanted"]

UNLABELLED = -1
"""The class of an image that has none."""


@dataclass(frozen=True)
class Entry:
    """One image of a source."""

    name: str
    label: int
    """Its class, or `UNLABELLED`."""
    stamp: str
    """Changes when its content does, as far as that can be seen without reading it."""


class Source(ABC):
    """Images in splits, each read when it is asked for, by any process."""

    description: str
    """For the manifest."""
    class_names: list[str] | None
    splits: dict[str, list[Entry]]
    left_out: list[str]
    """Files beside the images that are none, by name."""

    @abstractmethod
    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        """Image number `index` of a split, uint8 [C, H, W].

        Raises:
            ValueError: if it is not an image that can be read.
        """


class FileSource(Source):
    """Image files with names, whose folders, or a `labels.csv` or `metadata.jsonl` beside them, are their classes."""

    def arrange(self, stamps: Mapping[str, str], val_fraction: float) -> None:
        """Sort out the files, each with what would tell that it has changed.

        Raises:
            ValueError: if the files do not make a dataset (see `diffusion_lit.source.layout`).
        """
        images: list[str] = []
        label_files: list[str] = []
        self.left_out = []
        for name in sorted(stamps):
            if not wanted(name):
                self.left_out.append(name)
            else:
                (label_files if PurePosixPath(name).name in LABEL_FILES else images).append(name)
        labels: dict[str, str] | None = {} if label_files else None
        for name in label_files:
            assert labels is not None
            read = read_labels(self.text(name), name)
            if differing := [image for image, label in read.items() if labels.get(image, label) != label]:
                raise ValueError(f"{' and '.join(label_files)} give {differing[0]} different labels; keep one of them")
            labels |= read
        files = arrange(images, self.description, val_fraction, labels)
        self.class_names = class_names_of(files.values())
        number = {name: i for i, name in enumerate(self.class_names or [])}
        self.splits = {
            split: [Entry(name, UNLABELLED if label is None else number[label], stamps[name]) for name, label in inside]
            for split, inside in files.items()
        }

    def text(self, name: str) -> str:
        """A text file."""
        file = self.open(name, 2**30)
        try:
            return (file.read_bytes() if isinstance(file, Path) else file.read()).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is not UTF-8 text: {error}") from error

    @abstractmethod
    def open(self, name: str, max_bytes: int) -> Path | BinaryIO:
        """A file, or where it is.

        Raises:
            ValueError: if it is larger than `max_bytes`, or cannot be read.
        """

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        name = self.splits[split][index].name
        return reading.read(self.open(name, reading.max_bytes), name)


class FolderSource(FileSource):
    """The images below a folder; linked folders count.

    Args:
        root: the folder.
        val_fraction: see `diffusion_lit.source.layout.arrange`.
    """

    def __init__(self, root: Path, val_fraction: float) -> None:
        self.root = root
        self.description = str(root)
        self.arrange(dict(self.stamps()), val_fraction)

    def stamps(self) -> Iterator[tuple[str, str]]:
        for path in walk(self.root):
            name = path.relative_to(self.root).as_posix()
            try:
                status = os.stat(path)
            except OSError as error:  # a link to nothing, of which reading says so too
                yield name, str(error)
            else:
                yield name, f"{status.st_size} {status.st_mtime_ns}"

    def open(self, name: str, max_bytes: int) -> Path:
        path = self.root / name
        if path.exists() and not path.is_file():  # to open a pipe is to wait for ever
            raise ValueError(f"{path} is no ordinary file")
        return path


def wanted(name: str) -> bool:
    """Whether a name is an image's or a label file's, and not hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and (path.suffix.lower() in EXTENSIONS or path.name in LABEL_FILES)


def class_names_of(splits: Iterable[list[Named]]) -> list[str] | None:
    """All classes, by name or, where all are numbers, by number; None if there are none."""
    names = {label for files in splits for _, label in files if label is not None}
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return sorted(sorted(names), key=int if numbers else str) or None  # twice, because 1 and 01 are the same number
