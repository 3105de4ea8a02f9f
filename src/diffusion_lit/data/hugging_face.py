"""A dataset of the Hugging Face Hub, or a folder in one of its formats."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion_lit.data.batch import Images
from diffusion_lit.data.order import split_order
from diffusion_lit.data.sequential import Rest, Shards
from diffusion_lit.data.sequential_module import SequentialDataModule
from diffusion_lit.source.hugging_face import Columns, choose_columns, choose_splits, open_dataset
from diffusion_lit.source.image_file import Reading, Sample, decode
from diffusion_lit.source.layout import check_val_fraction

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["HuggingFaceData"]

log = logging.getLogger(__name__)

ROWS = 16  # read at a time from a stream


@dataclass(eq=False, repr=False)
class HuggingFaceData(SequentialDataModule):
    """Images of a dataset on the Hugging Face Hub, or of a folder that the package datasets reads.

    Downloaded to its cache as a whole, it is like any other data set. Streamed, nothing is stored: see
    `SequentialDataModule` for what that cannot do.

    Args:
        name: the dataset on the Hub, such as ylecun/mnist, or a folder.
        config: its configuration, where it has several.
        streaming: read from where it is while training.
        image_column: None takes the only one with images.
        label_column: None takes the only one with classes, or trains without.
        val_split: None takes its split val, valid or validation, or sets images aside from train.
        test_split: None takes its split test, or sets images aside from train; streamed, takes the validation images.
        val_fraction: the share of train that is set aside for each split that is missing, if it is not streamed.
        epoch_size: if it is streamed, how many images count as an epoch; None takes those that it says it has.
        val_size, shuffle_buffer: count only if it is streamed.

    Raises:
        ValueError: if the package datasets is missing, an argument is missing or out of range, or the dataset has no
            such split or column.
        FileNotFoundError: if the dataset is not there, or cannot be reached.
    """

    name: str | None = None
    _: KW_ONLY
    config: str | None = None
    streaming: bool = False
    image_column: str | None = None
    label_column: str | None = None
    val_split: str | None = None
    test_split: str | None = None
    val_fraction: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is None:
            raise ValueError("say which dataset: data.name=OWNER/NAME, as on huggingface.co/datasets, or a folder")
        check_val_fraction(self.val_fraction, "data.")
        if self.epoch_size is not None and not self.streaming:
            raise ValueError(f"data.epoch_size={self.epoch_size} needs data.streaming=true: else epochs are all images")
        self.source = f"data.name={self.name}"
        self.open = partial(open_dataset, self.name, self.config)
        self.streams = self.open(streaming=True)  # what the dataset is, without downloading it
        self.split_names = choose_splits(self.name, list(self.streams), self.val_split, self.test_split)
        features = self.streams["train"].features
        self.columns = choose_columns(self.name, features, (self.image_column, self.label_column))
        self.class_names = self.columns.class_names
        if self.streaming and self.epoch_size is None:
            self.known_size()

    def prepare_data(self) -> None:
        if not self.streaming:
            self.open(streaming=False)

    def load(self) -> dict[str, Images]:
        return self.load_streams() if self.streaming else self.load_tables()

    def load_tables(self) -> dict[str, Images]:
        """All rows, each in one split."""
        tables = self.undecoded(self.open(streaming=False))
        num_train = len(tables["train"])
        missing = [split for split, chosen in self.split_names.items() if chosen == "train" and split != "train"]
        count = max(1, round(num_train * self.val_fraction))
        if num_train <= count * len(missing):
            raise ValueError(f"{self.source} has {num_train} images to train on, too few to set any aside")
        order = split_order(num_train)
        indices = {split: torch.arange(len(tables[chosen])) for split, chosen in self.split_names.items()}
        indices["train"] = order[count * len(missing) :]
        indices |= {split: order[i * count : (i + 1) * count] for i, split in enumerate(missing)}
        return {
            split: TableImages(tables[chosen], self.columns, indices[split], self.reading, f"{self.name}[{chosen}]")
            for split, chosen in self.split_names.items()
        }

    def load_streams(self) -> dict[str, Images]:
        """The training split as a stream, from after those of its images that are set aside for validation."""
        streams = self.undecoded(self.streams)
        shards = {
            split: HubShards(streams[chosen], self.columns, f"{self.name}[{chosen}]")
            for split, chosen in self.split_names.items()
        }
        val, shard, place = self.in_memory(shards["val"])
        train: Shards = shards["train"]
        epoch_size = self.epoch_size or self.known_size()
        if self.split_names["val"] == "train":
            train = Rest(train, shard, place)
            epoch_size -= 0 if self.epoch_size else len(val)
            if train.num_shards == 0:
                raise ValueError(
                    f"{self.source} has no split for validation, and all of its {len(val)} images would be set aside: "
                    f"data.val_size={self.val_size} must be less"
                )
        if self.split_names["test"] == "train":
            log.info("%s has no split test: the validation images are the test images too", self.source)
            test = val
        else:
            test = self.in_memory(shards["test"])[0]
        return {"train": self.streamed(train, epoch_size), "val": val, "test": test}

    def undecoded(self, splits: Mapping[str, Any]) -> dict[str, Any]:
        return {split: self.columns.undecoded(splits[split]) for split in set(self.split_names.values())}

    def known_size(self) -> int:
        """How many images the training split says that it has; a ValueError if it does not."""
        described = (self.streams["train"].info.splits or {}).get("train")
        if described is None or not described.num_examples:
            raise ValueError(f"{self.source} does not say how many images it has: give data.epoch_size=NUMBER")
        return int(described.num_examples)


@dataclass(eq=False)
class TableImages:
    """Rows of a table on this machine, read when they are fetched."""

    table: "Dataset"
    """With images not decoded."""
    columns: Columns
    indices: Tensor
    """The rows that count."""
    reading: Reading
    name: str

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        rows = self.indices[indices].tolist()
        names = [f"row {row} of {self.name}" for row in rows]
        return decode(list(self.columns.samples(self.table[rows], names)), self.reading)


@dataclass(eq=False)
class HubShards:
    """The files of a streamed dataset."""

    stream: "IterableDataset"
    """With images not decoded."""
    columns: Columns
    name: str

    @property
    def num_shards(self) -> int:
        return self.stream.num_shards

    def read(self, shard: int) -> Iterator[Sample]:
        """The images of a shard; a ValueError names it if it cannot be read, or a row has no image or class."""
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
            names = [f"row {row + i} in shard {shard} of {self.name}" for i in range(len(columns[self.columns.image]))]
            yield from self.columns.samples(columns, names)
            row += len(names)
