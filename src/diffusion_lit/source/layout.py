"""Which split and which class an image belongs to, by its name below the folder or archive that it is in."""

import csv
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

__all__ = [
    "EXTENSIONS",
    "LABEL_FILES",
    "SPLITS",
    "Named",
    "arrange",
    "check_val_fraction",
    "class_of",
    "hashed_split",
    "read_labels",
    "set_aside",
    "share_out",
    "walk",
]

EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LABEL_FILES = ("labels.csv", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")
LABEL_COLUMNS = ("label", "class", "class_name")

Named = tuple[str, str | None]
"""An image's name and its class's, or None."""


def check_val_fraction(val_fraction: float, prefix: str = "") -> None:
    """
    Raises:
        ValueError: if it is not a share that can be set aside for each of two splits.
    """
    if not isinstance(val_fraction, int | float) or not 0 < val_fraction < 0.5:
        raise ValueError(
            f"{prefix}val_fraction is set aside twice and must be a number between 0 and 0.5, got {val_fraction}"
        )


def arrange(
    names: Iterable[str], where: str, val_fraction: float, labels: Mapping[str, str] | None = None
) -> dict[str, list[Named]]:
    """The images of each split, sorted by name, each with the name of its class.

    Folders `train`, `val` (or `valid`, `validation`) and `test` at the top are the splits; what is missing of them is
    set aside from `train`, or from everything. Within a split the first folder is the class.

    Args:
        names: of the images, with `/` between folders.
        where: what they are in, for messages.
        val_fraction: the share set aside for each of `val` and `test` where it is missing.
        labels: the class of each name, in place of folders.

    Raises:
        ValueError: if there are no images, only some have a class, or there are too few to set any aside.
    """
    names = sorted(names)
    if not names:
        raise ValueError(f"no images in {where} (looked for {' '.join(sorted(EXTENSIONS))}, in subfolders too)")
    top = {SPLIT_NAMES.get(name.partition("/")[0]) if "/" in name else None for name in names}
    if "train" in top and None in top:
        loose = next(name for name in names if SPLIT_NAMES.get(name.partition("/")[0]) is None)
        raise ValueError(f"{where} has a folder train, but also images outside train, val and test, such as {loose}")
    files: dict[str, list[Named]] = {split: [] for split in SPLITS}
    if "train" in top:
        for name in names:
            files[SPLIT_NAMES[name.partition("/")[0]]].append((name, None))
        for split in [split for split in SPLITS if files[split]]:
            inside = [name for name, _ in files[split]]
            files[split] = list(zip(inside, class_of(inside, f"{where}/{split}", labels, depth=1), strict=True))
        unlabelled = [split for split in SPLITS if files[split] and files[split][0][1] is None]
        if 0 < len(unlabelled) < sum(bool(found) for found in files.values()):
            raise ValueError(f"{where}/{unlabelled[0]} has no class folders, but other splits have; give all or none")
        if not (files["val"] and files["test"]):
            everything, files["train"] = files["train"], []
            missing = [split for split in ("val", "test") if not files[split]]
            for file in everything:
                split = hashed_split(file[0], val_fraction)
                files[split if split in missing else "train"].append(file)
    else:
        for file in zip(names, class_of(names, where, labels), strict=True):
            files[hashed_split(file[0], val_fraction)].append(file)
    return set_aside(files, where)


def hashed_split(name: str, val_fraction: float) -> str:
    """The split that an image of this name falls into, whatever other images there are."""
    hashed = zlib.crc32(name.encode(errors="surrogateescape")) / 2**32  # names need not be text
    return "val" if hashed < val_fraction else "test" if hashed < 2 * val_fraction else "train"


def share_out(sizes: dict[str, int], val_fraction: float) -> dict[str, list[tuple[str, int]]]:
    """The three splits as (split of the library, number), what is missing set aside from the library's `train`.

    Args:
        sizes: how many images each split of the library has, by its name.
        val_fraction: the share to set aside, for each split that is missing.
    """
    known = {SPLIT_NAMES[name]: name for name in sizes if name in SPLIT_NAMES}
    if "train" not in known:
        raise ValueError(f"needs a split named train; there are {', '.join(sizes)}")
    places: dict[str, list[tuple[str, int]]] = {
        split: [(known[split], i) for i in range(sizes[known[split]])] if split in known else [] for split in SPLITS
    }
    missing = [split for split in ("val", "test") if split not in known]
    if missing:
        everything, places["train"] = places["train"], []
        for place in everything:
            split = hashed_split(f"{place[0]}/{place[1]:07d}", val_fraction)
            places[split if split in missing else "train"].append(place)
    return places


def set_aside(files: dict[str, list[Named]], where: str) -> dict[str, list[Named]]:
    """The same with at least one image in each split: a small set may have hashed nothing there."""
    for split in SPLITS:
        if not files[split]:
            largest = max(files.values(), key=len)
            if len(largest) < 2:
                raise ValueError(
                    f"{where} has too few images to set any aside for validation and testing; 3 is the least"
                )
            files[split].append(largest.pop())
    return files


def class_of(
    names: Sequence[str], where: str, labels: Mapping[str, str] | None = None, depth: int = 0
) -> list[str | None]:
    """The class of each name: what `labels` says, else its folder number `depth` where all images lie in folders.

    Raises:
        ValueError: if only some images have one.
    """
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


def read_labels(text: str, file: str) -> dict[str, str]:
    """The class of each image that a `labels.csv` or `metadata.jsonl` names, by its name below the file's folder.

    A CSV has a header; the columns, or the keys of each JSON line, are `file_name` and `label`, or other usual words.

    Raises:
        ValueError: if the file is not like that, or names an image twice with different labels.
    """
    rows: list[dict[str, object]]
    try:
        if file.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(text.splitlines()))
    except (json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    keys = [key for row in rows[:1] if isinstance(row, dict) for key in row]
    file_key = next((key for key in FILE_COLUMNS if key in keys), None)
    label_key = next((key for key in LABEL_COLUMNS if key in keys), None)
    if file_key is None or label_key is None:
        raise ValueError(
            f"{file} needs a column {' or '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}; it has "
            f"{', '.join(map(str, keys)) or 'nothing'}"
        )
    folder = PurePosixPath(file).parent
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or row.get(file_key) is None or row.get(label_key) is None:
            raise ValueError(f"{file}: row {number} lacks {file_key} or {label_key}")
        name, label = str(folder / str(row[file_key])), str(row[label_key])
        if labels.setdefault(name, label) != label:
            raise ValueError(f"{file}: {row[file_key]} is labelled both {labels[name]} and {label}")
    return labels


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, also in linked folders, each of which is entered once."""
    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in entered:
            folders.clear()  # a link that leads back up would go round for ever
            continue
        entered.add(real)
        yield from (Path(parent, file) for file in files)
