"""Rows of a dataset as the Hugging Face package reads them: from a table on this machine, or from where they are."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffusion_lit.data.streamed import Sample, decode

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["HubShards", "TableImages", "choose_columns", "choose_splits", "open_dataset"]

ROWS = 16  # read at a time from a stream


def sample_of(image: Mapping[str, Any] | None, label: int | None, num_classes: int | None, name: str) -> Sample:
    """A row as a sample: its image is {"bytes", "path"}, one of which may be None.

    Raises:
        ValueError: if it has no image, or none of the classes.
    """
    if image is None:
        raise ValueError(f"{name} has no image")
    if num_classes is not None and (label is None or not 0 <= label < num_classes):
        raise ValueError(
            f"{name} has label {label}, which is none of the {num_classes} classes: the split has no labels"
        )
    if image["bytes"] is not None:
        return Sample(image["bytes"], label, name)
    import fsspec

    try:
        with fsspec.open(image["path"], "rb") as file:
            return Sample(file.read(), label, name)
    except OSError as error:
        raise ValueError(f"the file of {name}, {image['path']}, cannot be read ({error})") from error


class TableImages:
    """Rows of a table on this machine, read when they are fetched.

    Args:
        table: with images not decoded.
        columns: of the images, and of the labels or None.
        num_classes: labels lie below it; None if there are none.
        indices: the rows that count.
        resolution: height and width to make of each image.
        channels: 1 for grey, 3 for colour.
        name: of the table, for messages.
    """

    def __init__(
        self,
        table: "Dataset",
        columns: tuple[str, str | None],
        num_classes: int | None,
        indices: Tensor,
        resolution: int,
        channels: int,
        name: str,
    ) -> None:
        self.table = table
        self.image_column, self.label_column = columns
        self.num_classes = num_classes
        self.indices = indices
        self.resolution = resolution
        self.channels = channels
        self.name = name

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        rows = self.indices[indices].tolist()
        columns = self.table[rows]
        labels = columns[self.label_column] if self.label_column else [None] * len(rows)
        samples = [
            sample_of(image, label, self.num_classes, f"row {row} of {self.name}")
            for row, image, label in zip(rows, columns[self.image_column], labels, strict=True)
        ]
        return decode(samples, self.resolution, self.channels)


class HubShards:
    """The files of a streamed dataset.

    Args:
        stream: with images not decoded.
        columns: of the images, and of the labels or None.
        num_classes: labels lie below it; None if there are none.
        name: of the dataset, for messages.
    """

    def __init__(
        self, stream: "IterableDataset", columns: tuple[str, str | None], num_classes: int | None, name: str
    ) -> None:
        self.stream = stream
        self.image_column, self.label_column = columns
        self.num_classes = num_classes
        self.name = name
        self.num_shards: int = stream.num_shards

    def read(self, shard: int) -> Iterator[Sample]:
        """
        Raises:
            ValueError: if the shard cannot be read, or a row has no image or none of the classes; the message names it.
        """
        # iter(), because iterating over the dataset itself would share out the shard over the loading processes again
        batches = self.stream.shard(self.num_shards, shard).iter(ROWS)
        row = 0
        while True:
            try:
                columns = next(batches, None)
            except (OSError, ValueError) as error:  # pyarrow's are among them
                raise ValueError(f"shard {shard} of {self.name} cannot be read after row {row} ({error})") from error
            if columns is None:
                return
            images = columns[self.image_column]
            labels = columns[self.label_column] if self.label_column else [None] * len(images)
            for image, label in zip(images, labels, strict=True):
                yield sample_of(image, label, self.num_classes, f"row {row} in shard {shard} of {self.name}")
                row += 1


def open_dataset(name: str, config: str | None, streaming: bool) -> Any:
    """The splits of a dataset, by name; without `streaming` it is downloaded first, if it is not in the cache.

    Raises:
        ValueError: if the package datasets is missing, or the dataset cannot be made sense of.
        FileNotFoundError: if it is not there, or cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"Hugging Face datasets need a package: pip install 'diffusion-lit[hugging_face]' ({error})"
        ) from error

    try:
        return datasets.load_dataset(name, config, streaming=streaming)
    except OSError as error:
        cache = datasets.config.HF_DATASETS_CACHE
        raise FileNotFoundError(
            f"the dataset {name} is not a folder with images that can be read, is not in the cache {cache}, and was "
            f"not got from the Hugging Face hub ({error}). Check the name on huggingface.co/datasets; where there is "
            "no network, run once with one, without streaming, and copy the cache (HF_HOME says where it is)"
        ) from error
    except ValueError as error:  # such as an unknown configuration: its message names those there are
        raise ValueError(f"the dataset {name} with config={config} cannot be opened: {error}") from error


def choose_splits(name: str, there: list[str], val_split: str | None, test_split: str | None) -> dict[str, str]:
    """The dataset's split for each of train, val and test; `train` where images of it have to be set aside.

    Raises:
        ValueError: if one is not there.
    """
    asked = {"data.val_split": val_split, "data.test_split": test_split}
    for option, split in asked.items():
        if split is not None and split not in there:
            raise ValueError(f"{option}={split} is none of the splits of {name}: {', '.join(there)}")
    if "train" not in there:
        raise ValueError(f"{name} has no split train, only {', '.join(there)}")
    usual = {split: split if split in there else "train" for split in ("validation", "test")}
    return {"train": "train", "val": val_split or usual["validation"], "test": test_split or usual["test"]}


def choose_columns(
    name: str, features: Mapping[str, Any] | None, asked: tuple[str | None, str | None], prefix: str = "data."
) -> tuple[str, str | None]:
    """The columns of the images and of the labels, if there are any.

    Raises:
        ValueError: if there is none of images, or several and none was chosen, or the chosen one is something else.
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
                f"{prefix}{option}={column} is no column of type {kind.__name__} of {name}, which has {listed}"
            )
        if column is None and (len(fitting) > 1 or (kind is Image and not fitting)):
            many = "several columns" if fitting else "no column"
            raise ValueError(
                f"{name} has {many} of type {kind.__name__}; choose one with {prefix}{option}=: it has {listed}"
            )
        chosen.append(column or next(iter(fitting), None))
    assert chosen[0] is not None
    return chosen[0], chosen[1]
