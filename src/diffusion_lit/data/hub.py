"""Rows of a dataset as the Hugging Face package reads them: from a table on this machine, or from where they are."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from diffusion_lit.source.hugging_face import sample_of
from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.sample import Sample, decode

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["HubShards", "TableImages"]

ROWS = 16  # read at a time from a stream


class TableImages:
    """Rows of a table on this machine, read when they are fetched.

    Args:
        table: with images not decoded.
        columns: columns of the images, and of the labels or None.
        num_classes: labels lie below it; None if there are none.
        indices: the rows that count.
        reading: how each image is read.
        name: name of the table, for messages.
    """

    def __init__(
        self,
        table: "Dataset",
        columns: tuple[str, str | None],
        num_classes: int | None,
        indices: Tensor,
        reading: Reading,
        name: str,
    ) -> None:
        self.table = table
        self.image_column, self.label_column = columns
        self.num_classes = num_classes
        self.indices = indices
        self.reading = reading
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
        return decode(samples, self.reading)


class HubShards:
    """The files of a streamed dataset.

    Args:
        stream: with images not decoded.
        columns: columns of the images, and of the labels or None.
        num_classes: labels lie below it; None if there are none.
        name: name of the dataset, for messages.
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
        """The images of a shard.

        Raises:
            ValueError: if it cannot be read, or a row has no image or none of the classes; the message names it.
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
