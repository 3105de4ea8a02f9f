"""Images in pieces that can only be read from their beginning."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import get_worker_info

from diffusion_lit.random import fold_in
from diffusion_lit.source.image_file import Reading, Sample, decode

__all__ = ["Rest", "SequentialImages", "Shards", "head", "shuffled"]


class Shards(Protocol):
    """A set of images in pieces, each of which can be read from its beginning."""

    @property
    def num_shards(self) -> int: ...

    def read(self, shard: int) -> Iterator[Sample]: ...


def head(shards: Shards, count: int) -> tuple[list[Sample], int, int]:
    """The first `count` samples, and where the next one is: its shard, and how many samples lie before it there."""
    samples: list[Sample] = []
    for shard in range(shards.num_shards):
        for place, sample in enumerate(shards.read(shard)):
            if len(samples) == count:
                return samples, shard, place
            samples.append(sample)
    return samples, shards.num_shards, 0


@dataclass(eq=False)
class Rest:
    """What is left of shards from one place on: `skip` images after the beginning of shard `first`."""

    shards: Shards
    first: int
    skip: int

    @property
    def num_shards(self) -> int:
        return self.shards.num_shards - self.first

    def read(self, shard: int) -> Iterator[Sample]:
        return islice(self.shards.read(self.first + shard), self.skip if shard == 0 else 0, None)


def shuffled(samples: Iterable[Sample], buffer_size: int, generator: Generator) -> Iterator[Sample]:
    """All samples, each drawn from the next `buffer_size` that are left."""
    buffer: list[Sample] = []
    for sample in samples:
        if len(buffer) < buffer_size:
            buffer.append(sample)
            continue
        chosen = int(torch.randint(buffer_size, (), generator=generator))
        yield buffer[chosen]
        buffer[chosen] = sample
    yield from (buffer[i] for i in torch.randperm(len(buffer), generator=generator).tolist())


@dataclass(eq=False)
class SequentialImages:
    """The images of an endless stream, by running numbers, in each loading process its own.

    Rank r's worker w, of W workers each on R ranks, is share r W + w of R W. In each epoch the shards are permuted and
    dealt out to the shares; where there are fewer shards than shares, several shares take every n-th image of one. A
    share reads its shards in a random order, through a buffer that shuffles, and begins them again in a new order at
    their end: no rank waits for another, however unequal they are. All this is a function of (seed, epoch, rank,
    worker) and of where in the epoch the run began.

    Args:
        epoch_size: how many images count as an epoch.
        shuffle_buffer: how many images, encoded, each share keeps to choose from; 1 does not shuffle.
        world_size: how many processes share the shards.
    """

    shards: Shards
    epoch_size: int
    shuffle_buffer: int
    reading: Reading
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.last = (-1, -1)  # the epoch, and the number that was fetched last
        self.stream: Iterator[Sample] = iter(())

    def __len__(self) -> int:
        return self.epoch_size

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        epoch, number = divmod(indices[0], self.epoch_size)
        if epoch != self.last[0] or number <= self.last[1]:  # an epoch begins, or begins again
            self.stream = self.open(epoch, number)
        self.last = (epoch, number)
        return decode(list(islice(self.stream, len(indices))), self.reading)

    def open(self, epoch: int, number: int) -> Iterator[Sample]:
        """This share's images of an epoch, from the first that it is asked for."""
        worker = get_worker_info()
        index, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        share, num_shares = self.rank * num_workers + index, self.world_size * num_workers
        dealt = torch.randperm(self.shards.num_shards, generator=fold_in(self.seed, "shards", epoch)).tolist()
        generator = fold_in(self.seed, "stream", epoch, share, number)
        if num_shares <= len(dealt):
            return self.repeat(dealt[share::num_shares], 0, 1, generator)
        place, shard = divmod(share, len(dealt))
        return self.repeat([dealt[shard]], place, len(range(shard, num_shares, len(dealt))), generator)

    def repeat(self, own: list[int], offset: int, step: int, generator: Generator) -> Iterator[Sample]:
        """Every `step`-th image of the shards `own`, again and again."""
        while True:
            order = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
            samples = (sample for shard in order for sample in islice(self.shards.read(shard), offset, None, step))
            empty = True
            for sample in shuffled(samples, self.shuffle_buffer, generator):
                empty = False
                yield sample
            if empty:
                raise ValueError(
                    f"a loading process found no image in its share (part {offset} of {step} of {len(own)} shards, out "
                    f"of {self.shards.num_shards} in all): use fewer data.num_workers, or shards that hold more images"
                )
