"""Where images come from: a folder, an archive, or a library's dataset."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from diffusion_lit.counted import counted
from diffusion_lit.source.bands import is_array
from diffusion_lit.source.file_kind import ARRAY, HIDDEN, IMAGE, LABELS, MAX_BYTES, OTHER, kind_of
from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.label_file import read_labels
from diffusion_lit.source.layout import arrange, class_names_of, share_out, shared_folder

__all__ = ["UNLABELLED", "Entry", "FileSource", "Source", "TableSource"]

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
    left_out: Mapping[str, str] = {}
    """Names of files that are not taken, and of what kind they are: `HIDDEN` or `OTHER`."""

    @abstractmethod
    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        """Image number `index` of a split, uint8 [C, H, W]; a ValueError if it is not an image that can be read."""

    def remarks(self) -> list[str]:
        """What may not be meant: files that are left out, and classes without images to train on."""
        lines = []
        if self.left_out:
            kinds = {kind: [name for name, of in self.left_out.items() if of == kind] for kind in (HIDDEN, OTHER)}
            each = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
            lines.append(f"left out {counted(len(self.left_out), 'file')}: {'; '.join(each)}")
        trained = {entry.label for entry in self.splits["train"]}
        for split in ("val", "test"):
            missing = sorted({entry.label for entry in self.splits[split]} - trained)
            if missing and self.class_names:
                names = ", ".join(self.class_names[label] for label in missing[:10]) + (", ..." * (len(missing) > 10))
                lines.append(f"classes of {split} without images in train ({len(missing)}): {names}")
        return lines


class TableSource(Source):
    """Rows of a library's dataset, which has splits of its own."""

    places: dict[str, list[tuple[str, int]]]
    """Where each image of a split is: the library's split, and the row."""

    def share_out(self, labels: Mapping[str, Sequence[int]], val_fraction: float, stamps: Mapping[str, str]) -> None:
        """Sort rows, given by their classes, into splits, with what changes when one does: see `layout.share_out`."""
        sizes = {split: len(classes) for split, classes in labels.items()}
        self.places = share_out(sizes, self.description, val_fraction)
        self.splits = {
            split: [Entry(f"{of}/{row:09d}", labels[of][row], stamps[of]) for of, row in places]
            for split, places in self.places.items()
        }


class FileSource(Source):
    """Image files with names, whose folders, or a file of labels beside them (see `read_labels`), are their classes."""

    wrapped = False
    """Whether names leave out the folders that all images lie in, which say nothing."""
    prefix = ""
    """Those folders."""
    numbered = False
    """Whether classes have numbers and no names, as in EDM's `dataset.json`."""

    def arrange(self, stamps: Mapping[str, str], val_fraction: float) -> None:
        """Sort files, by name with what changes when one does, into splits and classes: see `layout.arrange`."""
        kinds = {name: kind_of(name, self.open) for name in sorted(stamps)}
        alone = IMAGE not in kinds.values()
        for name in [name for name, kind in kinds.items() if kind == ARRAY]:
            kinds[name] = IMAGE if alone and is_array(self.open(name, MAX_BYTES)) else OTHER
        self.left_out = {name: kind for name, kind in kinds.items() if kind in (HIDDEN, OTHER)}
        if self.wrapped:
            self.prefix = shared_folder([name for name in kinds if name not in self.left_out])
        images = [name.removeprefix(self.prefix) for name, kind in kinds.items() if kind == IMAGE]
        labels = self.labels([name.removeprefix(self.prefix) for name, kind in kinds.items() if kind == LABELS])
        files = arrange(images, self.description, val_fraction, labels)
        self.class_names = class_names_of(files.values())
        number = {None: UNLABELLED} | {name: i for i, name in enumerate(self.class_names or [])}
        self.splits = {
            split: [Entry(name, number[label], stamps[self.prefix + name]) for name, label in inside]
            for split, inside in files.items()
        }

    def labels(self, names: list[str]) -> dict[str, str] | None:
        """The class of each image that label files name, none if they say that there are none; None without files."""
        labels: dict[str, str] = {}
        others = 0
        for name in names:
            file = self.open(self.prefix + name, 2**30)
            data = file.read_bytes() if isinstance(file, Path) else file.read()
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} is not UTF-8 text: {error}") from error
            if (found := read_labels(text, name)) is None:
                self.left_out = {**self.left_out, self.prefix + name: OTHER}
                others += 1
                continue
            for image, label in found.items():
                if labels.setdefault(image, label) != label:
                    raise ValueError(f"{' and '.join(names)} give {image} different labels; keep one of them")
        self.numbered = bool(labels) and all(name.endswith(".json") for name in names)
        return labels if len(names) > others else None

    @abstractmethod
    def open(self, name: str, max_bytes: int) -> Path | BinaryIO:
        """A file by its whole name, or where it is; a ValueError if it is over `max_bytes`, or cannot be read."""

    def file(self, split: str, index: int, reading: Reading) -> Path | BinaryIO:
        return self.open(self.prefix + self.splits[split][index].name, reading.max_bytes)

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        file = self.file(split, index, reading)
        name = self.splits[split][index].name
        return reading.read(file, str(file) if isinstance(file, Path) else f"{name} of {self.description}")
