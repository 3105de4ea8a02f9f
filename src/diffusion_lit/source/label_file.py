"""Files that say which class each image has."""

import csv
import json
from pathlib import PurePosixPath

__all__ = ["read_labels"]

FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")
LABEL_COLUMNS = ("label", "class", "class_name")


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
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    keys = [key for row in rows[:1] if isinstance(row, dict) for key in row]
    file_key = next((key for key in FILE_COLUMNS if key in keys), None)
    label_key = next((key for key in LABEL_COLUMNS if key in keys), None)
    if file_key is None or label_key is None:
        raise ValueError(
            f"{file} needs a column {' or '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}; it has "
            f"{', '.join(map(str, keys)) or 'nothing'}. Add them, or move the file elsewhere"
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
