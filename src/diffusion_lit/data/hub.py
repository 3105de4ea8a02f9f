"""Rows of a dataset as the Hugging Face package reads them: from a table on this machine, or from where they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from diffusion_lit.source.hugging_face import Columns
from diffusion_lit.source.image_file import Reading, Sample, decode

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["HubShards", "TableImages"]

ROWS = 16  # read at a time from a stream


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
            names = [f"row {row + i} in shard {shard} of {self.name}" for i in range(len(columns[self.columns.image]))]
            yield from self.columns.samples(columns, names)
            row += len(names)
