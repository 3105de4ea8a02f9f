"""Files that say of which classes the images beside them are."""

import csv
import io
import json
from pathlib import PurePosixPath

__all__ = ["read_labels"]

FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")
LABEL_COLUMNS = ("label", "class", "class_name")


def read_labels(text: str, file: str) -> dict[str, str] | None:
    """The class of each image that a label file names, by its name below the file's folder.

    A `labels.csv` has a header; the columns, or the keys of each line of a `metadata.jsonl`, are `file_name` and
    `label`, or other usual words. EDM's `dataset.json` is `{"labels": [[name, class], ...]}`, or null without classes;
    None for another file of that name, which many programs write.

    Raises:
        ValueError: if the file is not like that, or has no label for an image, or two.
    """
    if file.endswith(".json"):
        return read_edm_labels(text, file)
    rows: list[dict[str, object]]
    lines = io.StringIO(text, newline="")  # str.splitlines() would also cut at U+2028 and others, which values may have
    try:
        if file.endswith(".jsonl"):
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            rows = list(csv.DictReader(lines))
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
        if not isinstance(row, dict) or any(row.get(key) in (None, "") for key in (file_key, label_key)):
            raise ValueError(f"{file}: row {number} lacks {file_key} or {label_key}")
        name, label = str(folder / str(row[file_key])), str(row[label_key])
        if labels.setdefault(name, label) != label:
            raise ValueError(f"{file}: {row[file_key]} is labelled both {labels[name]} and {label}")
    return labels


def read_edm_labels(text: str, file: str) -> dict[str, str] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}. Mend it, or move it elsewhere") from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    try:
        pairs = [(str(PurePosixPath(file).parent / name), number) for name, number in content["labels"] or []]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'{file} should be {{"labels": [[name, class], ...]}} or {{"labels": null}}, as EDM\'s dataset_tool.py '
            f"writes it ({type(error).__name__}): mend it, or move it elsewhere"
        ) from error
    if wrong := next((pair for pair in pairs if type(pair[1]) is not int or pair[1] < 0), None):
        raise ValueError(f"{file}: the class of {wrong[0]} is {wrong[1]!r}, and should be a number from 0")
    return {name: str(number) for name, number in pairs}
