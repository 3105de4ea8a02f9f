"""Datasets as the Hugging Face package reads them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion_lit.extra import require
from diffusion_lit.source.base import UNLABELLED, TableSource
from diffusion_lit.source.image_file import Reading, Sample
from diffusion_lit.source.layout import SPLITS, known_splits

__all__ = ["Columns", "HuggingFaceSource", "choose_columns", "choose_splits", "open_dataset", "sample_of"]


@dataclass(frozen=True)
class Columns:
    """What is used of a dataset: the column of the images, and that of the classes with their names, or None."""

    image: str
    label: str | None
    class_names: list[str] | None

    def undecoded(self, data: Any) -> Any:
        """A table or a stream of these columns alone, images as the bytes of their files."""
        from datasets import Image

        used = [column for column in (self.image, self.label) if column is not None]
        return data.select_columns(used).cast_column(self.image, Image(decode=False))

    def samples(self, columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Iterator[Sample]:
        """Rows, given by columns, as samples with these names; a ValueError names a row that is not one."""
        labels = columns[self.label] if self.label else [None] * len(names)
        num_classes = None if self.class_names is None else len(self.class_names)
        for image, label, name in zip(columns[self.image], labels, names, strict=True):
            yield sample_of(image, label, num_classes, name)


class HuggingFaceSource(TableSource):
    """A dataset of the Hugging Face Hub, or one in a folder that its package reads.

    Args:
        name: `OWNER/NAME`, or a folder; a configuration may follow a colon.
        columns: columns of the images and of the classes; None finds the only one of its kind.
        val_fraction: the share of `train` set aside where there is no `val` (`valid`, `validation`) or `test`.

    Raises:
        ValueError: if it has no split `train`, or no column of images, or several.
        FileNotFoundError: if it is not there and cannot be fetched.
    """

    def __init__(self, name: str, columns: tuple[str | None, str | None], val_fraction: float) -> None:
        self.description = f"hf:{name}"
        name, _, config = name.partition(":")
        tables = open_dataset(name, config or None, streaming=False)
        features = tables[known_splits(tables, self.description)["train"]].features
        self.columns = choose_columns(name, features, columns, prefix="")
        self.class_names = self.columns.class_names
        self.tables = {split: self.columns.undecoded(table) for split, table in tables.items()}
        labels = {
            split: table[self.columns.label][:] if self.columns.label else [UNLABELLED] * len(table)
            for split, table in self.tables.items()
        }
        stamps = {split: getattr(table, "_fingerprint", "") for split, table in self.tables.items()}
        self.share_out(labels, val_fraction, stamps)

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        of, row = self.places[split][index]
        name = f"row {row} of {self.description}, {of}"
        [sample] = self.columns.samples(self.tables[of][row : row + 1], [name])
        return reading.read(io.BytesIO(sample.image), name)


def sample_of(image: Mapping[str, Any] | None, label: int | None, num_classes: int | None, name: str) -> Sample:
    """A row as a sample, of whose image {"bytes", "path"} one may be None; a ValueError if it lacks image or class."""
    if image is None:
        raise ValueError(f"{name} has no image")
    if num_classes is not None and (label is None or not 0 <= label < num_classes):
        raise ValueError(
            f"{name} has label {label}, which is not one of the {num_classes} classes: the split has no labels"
        )
    if image["bytes"] is not None:
        return Sample(image["bytes"], label, name)
    import fsspec

    try:
        with fsspec.open(image["path"], "rb") as file:
            return Sample(file.read(), label, name)
    except OSError as error:
        raise ValueError(f"the file of {name}, {image['path']}, cannot be read ({error})") from error


def open_dataset(name: str, config: str | None, streaming: bool) -> Any:
    """The splits of a dataset, by name; without `streaming` it is downloaded first, if it is not in the cache.

    Raises:
        ValueError: if the package datasets is missing, or the dataset cannot be made sense of.
        FileNotFoundError: if it is not there, or cannot be reached.
    """
    datasets = require("datasets", "hugging_face", "a dataset of Hugging Face's")
    try:
        return datasets.load_dataset(name, config, streaming=streaming)
    except OSError as error:
        cache = datasets.config.HF_DATASETS_CACHE
        raise FileNotFoundError(
            f"the dataset {name} is not a folder with images that can be read, is not in the cache {cache}, and could "
            f"not be fetched from the Hugging Face Hub ({error}). Check the name on huggingface.co/datasets; without a "
            "network, run once where there is one, without streaming, and copy the cache (HF_HOME says where it is)"
        ) from error
    except ValueError as error:  # such as an unknown configuration: its message names those there are
        raise ValueError(f"the dataset {name} with config={config} cannot be opened: {error}") from error


def choose_splits(name: str, there: list[str], val_split: str | None, test_split: str | None) -> dict[str, str]:
    """The split for each of train, val and test, or train to set images aside from; a ValueError if it is missing."""
    asked = {"data.val_split": val_split, "data.test_split": test_split}
    for option, split in asked.items():
        if split is not None and split not in there:
            raise ValueError(f"{option}={split} is not one of the splits of {name}: {', '.join(there)}")
    usual = dict.fromkeys(SPLITS, "train") | known_splits(there, name)
    return usual | {split: chosen for split, chosen in (("val", val_split), ("test", test_split)) if chosen is not None}


def choose_columns(
    name: str, features: Mapping[str, Any] | None, asked: tuple[str | None, str | None], prefix: str = "data."
) -> Columns:
    """The columns of the images and of the labels, if there are any.

    A ValueError if none is of images, or several and none was chosen, or the chosen one is of another type.
    """
    from datasets import ClassLabel, Image

    if features is None:
        raise ValueError(f"{name} does not say what its columns are; store it as parquet with a column of type Image")
    listed = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
    chosen: list[str | None] = []
    for option, column, kind in zip(("image_column", "label_column"), asked, (Image, ClassLabel), strict=True):
        fitting = [key for key, feature in features.items() if isinstance(feature, kind)]
        if column is not None and column not in fitting:
            raise ValueError(
                f"{prefix}{option}={column} is not a column of type {kind.__name__} of {name}, which has {listed}"
            )
        if column is None and (len(fitting) > 1 or (kind is Image and not fitting)):
            many = "several columns" if fitting else "no column"
            raise ValueError(f"{name} has {many} of type {kind.__name__}; choose one with {prefix}{option}=: {listed}")
        chosen.append(column or next(iter(fitting), None))
    image, label = chosen
    assert image is not None
    return Columns(image, label, None if label is None else list(features[label].names))
