"""In which order images are visited: a function of (seed, epoch), shared out over ranks, resumable at any image."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, pairwise

import torch
from torch import Tensor
from torch.utils.data import Sampler

from diffusion_lit.data.computed_order import ComputedOrder
from diffusion_lit.data.computed_shard_order import ComputedShardOrder
from diffusion_lit.random import fold_in

__all__ = ["EvaluationOrder", "Permutation", "TrainingOrder", "permute", "permute_shards", "split_order"]

log = logging.getLogger(__name__)

Permutation = Callable[[int, int], Tensor | ComputedOrder | ComputedShardOrder]
"""(seed, epoch) to the order of all images, int64 [N], or what can be sliced like it."""

MAX_TABLE = 2**22
"""Images up to which each process keeps the order of an epoch: 32 MiB."""

BLOCK = 4096
"""Images of a rank whose places in an order are computed at once: of a few at a time, most time is between them."""


def split_order(num_images: int) -> Tensor:
    """The order of a set's images from which splits are cut: part of the set, whatever a run's seed."""
    return torch.randperm(num_images, generator=fold_in(0, "split", 0))


def permute(num_images: int, seed: int, epoch: int) -> Tensor | ComputedOrder:
    """All orders of the images are equally likely; over `MAX_TABLE` images, they look so."""
    if num_images > MAX_TABLE:
        return ComputedOrder(num_images, seed, epoch)
    return torch.randperm(num_images, generator=fold_in(seed, "order", epoch))


def permute_shards(sizes: Sequence[int], num_lanes: int, seed: int, epoch: int) -> Tensor | ComputedShardOrder:
    """An order in which few shards are being read at a time.

    The shards, and the images within each, are shuffled; the row of all images is cut into `num_lanes` lanes of equal
    length, and these are visited in turn. So each lane walks through shards one after another, and a batch mixes all
    lanes. Of W ranks, where W divides `num_lanes`, each visits only lanes of its own. Over `MAX_TABLE` images, they are
    shuffled as `permute` does.

    Args:
        sizes: how many images each shard has; they are numbered through.
        num_lanes: shards that are being read at a time.
        seed, epoch: what the shuffles are a function of.
    """
    if sum(sizes) > MAX_TABLE:
        return ComputedShardOrder(sizes, num_lanes, seed, epoch)
    generator = fold_in(seed, "order", epoch)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    shards = torch.randperm(len(sizes), generator=generator).tolist()
    row = torch.cat([ends[i] - sizes[i] + torch.randperm(sizes[i], generator=generator) for i in shards])
    length = -(-len(row) // num_lanes)
    lanes = torch.nn.functional.pad(row, (0, length * num_lanes - len(row)), value=-1).view(num_lanes, length)
    visited = lanes.T.flatten()
    return visited[visited >= 0]


@dataclass(eq=False)
class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, image index) for one rank; each epoch is a new permutation of all images.

    Step k of an epoch takes the images k B D .. (k + 1) B D of the permutation, where B is the batch size and D = W A
    the number of batches: A on each of W ranks. They are dealt out to D columns, of which column c has every D-th image
    from the c-th on: batch m of rank r is column m W + r. So a step has the same D batches however many ranks compute
    them, and a rank has every W-th image. The position in an epoch is a plain number of images, which means the same
    for any B, W and A.

    An epoch's last step has fewer columns where fewer than B D images are left. The fewer than B W left after that wait
    for another epoch; where there are fewer than B W in all, the batch shrinks to fit. An epoch that is resumed, after
    another B, W or A, at a place where none of its steps begins has a short step first, too.

    Args:
        batch_size: images in a batch.
        seed: seed of the permutations.
        world_size: how many processes share each epoch.
        permutation: permutation of each epoch; None takes `permute`.
        batches_per_step: batches of each rank in a step, A.

    Raises:
        ValueError: if there are fewer images than ranks.
    """

    num_images: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    permutation: Permutation | None = None
    batches_per_step: int = 1

    def __post_init__(self) -> None:
        if self.num_images < self.world_size:
            raise ValueError(f"{self.num_images} training images cannot be shared out over {self.world_size} processes")
        most = self.num_images // self.world_size
        if self.batch_size > most:
            if self.rank == 0:
                log.warning(
                    f"data.batch_size={self.batch_size} is more than each process has of the {self.num_images} "
                    f"training images: a batch is {most} of them"
                )
            self.batch_size = most
        self.permute: Permutation = self.permutation or partial(permute, self.num_images)
        self.epoch = 0
        self.start = (0, 0)
        self.sampler = self  # Lightning announces the epoch to `batch_sampler.sampler`

    @property
    def round_size(self) -> int:
        """Images that all ranks together take in a batch each."""
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def resume(self, epoch: int, position: int) -> None:
        """Begin epoch `epoch` at its image number `position`; other epochs begin at 0."""
        self.start = (epoch, position)
        # Loading processes are given their first batches before Lightning announces the epoch, which is the next one
        # where no step is left of this.
        self.epoch = epoch + (self.num_images - position < self.round_size)

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever it is begun: Lightning counts those already done itself."""
        return self.num_images // self.round_size

    def batches_before(self, position: int) -> int:
        """Batches of an epoch that count as done at its image number `position`: all but those still to come."""
        return len(self) - (self.num_images - position) // self.round_size

    def steps(self) -> Iterator[Tensor]:
        """This rank's images of each step of the epoch, batch by batch, from where it begins."""
        epoch, position = self.start
        first = position if epoch == self.epoch else 0
        done, end, count = self.batches_before(first), len(self), self.batches_per_step
        order = self.permute(self.seed, self.epoch)
        # Lightning steps after every A-th batch of an epoch, and after its last.
        cuts = chain([done], islice(range(done // count * count, end, count), 1, None), [end])
        steps, at_once = pairwise(cuts), max(1, BLOCK // (count * self.batch_size))
        while block := list(islice(steps, at_once)):
            begin, stop = (first + (number - done) * self.round_size for number in (block[0][0], block[-1][1]))
            own = order[begin + self.rank : stop : self.world_size]
            shares = torch.split(own, [(b - a) * self.batch_size for a, b in block])
            for share in shares:
                yield share.view(self.batch_size, -1).T.flatten() if len(share) else share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for share in self.steps():  # not before the first is asked for: the epoch is announced late
            yield from self.batches(share)

    def batches(self, share: Tensor) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for begin in range(0, len(share), self.batch_size):
            yield [(epoch, index) for index in share[begin : begin + self.batch_size].tolist()]


class EvaluationOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (0, image index) for one rank: every image exactly once over all ranks, in order.

    All ranks have the same number of batches, none of them empty, so that none waits for another: a rank's images are
    cut into pieces of almost equal size, at most `batch_size` + 1.
    """

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if num_images < world_size:
            raise ValueError(f"{num_images} images to evaluate on cannot be shared out over {world_size} processes")
        self.indices = range(rank, num_images, world_size)
        self.num_batches = -(-(num_images // world_size) // batch_size)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        bounds = [len(self.indices) * i // self.num_batches for i in range(self.num_batches + 1)]
        for begin, end in pairwise(bounds):
            yield [(0, index) for index in self.indices[begin:end]]
