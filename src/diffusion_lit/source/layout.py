"""Which split and which class an image belongs to, by its name below the folder or archive that it is in."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TypeVar

from diffusion_lit.source.file_kind import EXTENSIONS

__all__ = [
    "SPLITS",
    "SPLIT_NAMES",
    "arrange",
    "check_val_fraction",
    "class_names_of",
    "hashed_split",
    "known_splits",
    "share_out",
    "shared_folder",
]

Item = TypeVar("Item")
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Named = tuple[str, str | None]
"""An image's name and its class's, or None."""


def check_val_fraction(val_fraction: float, prefix: str = "") -> None:
    """Refuse what is not a share that can be set aside for each of two splits."""
    if not isinstance(val_fraction, int | float) or not 0 < val_fraction < 0.5:
        raise ValueError(f"{prefix}val_fraction is set aside twice: a number between 0 and 0.5, got {val_fraction}")


def arrange(
    names: Iterable[str], where: str, val_fraction: float, labels: Mapping[str, str] | None = None
) -> dict[str, list[Named]]:
    """The images of each split, sorted by name, each with the name of its class.

    Folders `train`, `val` (or `valid`, `validation`) and `test` at the top are the splits; what is missing of them is
    set aside from `train`, or from everything. Within a split the first folder is the class. Without `train`, a `val`
    or `test` beside other class folders is one of these, if its images lie directly in it.

    Args:
        names: names of the images, with `/` between folders.
        where: what they are in, for messages.
        val_fraction: the share set aside for each of `val` and `test` where it is missing.
        labels: the class of each name, in place of folders; empty where there are no classes.

    Raises:
        ValueError: if there are no images, only some have a class, a split is beside images of none, or there are too
            few to set any aside.
    """
    names = sorted(names)
    if not names:
        raise ValueError(f"no images in {where} (looked for {' '.join(sorted(EXTENSIONS))}, in subfolders too)")
    top = {split_of(name) for name in names}
    if "train" in top and None in top:
        loose = next(name for name in names if split_of(name) is None)
        raise ValueError(f"{where} has a folder train, but also images outside train, val and test, such as {loose}")
    if not top & {"train", None}:
        raise ValueError(f"{where} has a folder {names[0].partition('/')[0]}, but no folder train: add or rename one")
    held_out = [name for name in names if split_of(name) and (labels is not None or name.count("/") > 1)]
    if "train" not in top and held_out:
        loose, folder = next(name for name in names if split_of(name) is None), held_out[0].partition("/")[0]
        raise ValueError(
            f"{where} has a folder {folder}, but no folder train, so that {held_out[0]} would be trained on: put what "
            f"is beside it, such as {loose}, into a folder train, or rename {folder} if it is not a split"
        )
    files: dict[str, list[Named]] = {split: [] for split in SPLITS}
    if "train" in top:
        for split in SPLITS:
            inside = [name for name in names if split_of(name) == split]
            files[split] = list(zip(inside, class_of(inside, f"{where}/{split}", labels, depth=1), strict=True))
        unlabelled = [split for split in SPLITS if files[split] and files[split][0][1] is None]
        if 0 < len(unlabelled) < sum(bool(found) for found in files.values()):
            raise ValueError(f"{where}/{unlabelled[0]} has no class folders, but other splits have; give all or none")
    else:
        files["train"] = list(zip(names, class_of(names, where, labels), strict=True))
    return set_aside(files, where, val_fraction, lambda file: file[0])


def split_of(name: str) -> str | None:
    """The split whose folder an image is in, in any case of letters, or None."""
    top, folder, _ = name.partition("/")
    return SPLIT_NAMES.get(top.lower()) if folder else None


def shared_folder(names: Iterable[str]) -> str:
    """The folders that all images lie in, with a `/` at the end, up to one that is a split."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    return "".join(f"{level[0]}/" for level in takewhile(lambda level: level[0].lower() not in SPLIT_NAMES, levels))


def hashed_split(name: str, val_fraction: float) -> str:
    """The split that an image of this name falls into, whatever other images there are."""
    hashed = zlib.crc32(name.encode(errors="surrogateescape")) / 2**32  # names need not be text
    return "val" if hashed < val_fraction else "test" if hashed < 2 * val_fraction else "train"


def known_splits(names: Iterable[str], where: str) -> dict[str, str]:
    """What a library calls each of our splits that it has; a ValueError if there is no `train`."""
    there = list(names)
    known = {SPLIT_NAMES[name]: name for name in there if name in SPLIT_NAMES}
    if "train" not in known:
        raise ValueError(f"{where} needs a split named train; there are {', '.join(there)}")
    return known


def share_out(sizes: Mapping[str, int], where: str, val_fraction: float) -> dict[str, list[tuple[str, int]]]:
    """The three splits as (split of the library, number), what is missing set aside from the library's `train`.

    `sizes` are those of the library's splits; a ValueError if there is no `train`, or there are too few images.
    """
    places: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for split, name in known_splits(sizes, where).items():
        places[split] = [(name, number) for number in range(sizes[name])]
    return set_aside(places, where, val_fraction, lambda place: f"{place[0]}/{place[1]:07d}")


def set_aside(
    files: dict[str, list[Item]], where: str, val_fraction: float, name_of: Callable[[Item], str]
) -> dict[str, list[Item]]:
    """The same with what is missing of `val` and `test` taken from `train`, by a hash of each name."""
    missing = [split for split in ("val", "test") if not files[split]]
    everything, files["train"] = files["train"], []
    for file in everything:
        split = hashed_split(name_of(file), val_fraction)
        files[split if split in missing else "train"].append(file)
    shared = ["train", *missing]
    if len(everything) < len(shared):
        raise ValueError(
            f"{where} has too few images to train on and set any aside for {' and '.join(missing)}; {len(shared)} is "
            "the least"
        )
    for split in shared:  # a small set may have hashed nothing there
        if not files[split]:
            files[split].append(max((files[name] for name in shared), key=len).pop())
    return files


def class_of(
    names: Sequence[str], where: str, labels: Mapping[str, str] | None = None, depth: int = 0
) -> list[str | None]:
    """The class of each name: what `labels` says, else its folder number `depth` where all images lie in folders."""
    if labels is not None and not labels:
        return [None] * len(names)
    if labels is not None:
        if unlabelled := [name for name in names if name not in labels]:
            raise ValueError(
                f"{len(unlabelled)} images of {where} have no label in its label file, such as {unlabelled[0]}; "
                "add them there, or take them out"
            )
        return [labels[name] for name in names]
    parts = [PurePosixPath(name).parts[depth:] for name in names]
    loose = [part[-1] for part in parts if len(part) == 1]
    if loose and len(loose) < len(names):
        raise ValueError(
            f"{where} has both class folders and {len(loose)} images outside any, such as {loose[0]}; "
            "move them into class folders, or all images into one folder"
        )
    return [None if loose else part[0] for part in parts]


def class_names_of(splits: Iterable[list[Named]]) -> list[str] | None:
    """All classes, by name or, where all are numbers, by number; None if there are none."""
    names = {label for files in splits for _, label in files if label is not None}
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return sorted(sorted(names), key=int if numbers else str) or None  # twice, because 1 and 01 are the same number
