"""In which order images are visited: a function of (seed, epoch), shared out over ranks, resumable at any image."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch.utils.data import Sampler

from diffusion_lit.random import fold_in

__all__ = ["EvaluationOrder", "TrainingOrder"]


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, image index) for one rank; each epoch is a new permutation of all images.

    Step k of an epoch takes the images k B W .. (k + 1) B W of the permutation, B being the batch size and W the number
    of ranks, and rank r the r-th B of them. So the position in an epoch is a plain number of images, which means the
    same for any B and W. The fewer than B W images left over wait for another epoch; where there are fewer than B W
    in all, the batch shrinks to fit.

    Args:
        num_images: in the training set.
        batch_size: images a rank and step.
        seed: of the permutations.
        rank: of this process.
        world_size: how many processes share each epoch.

    Raises:
        ValueError: if there are fewer images than ranks.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if num_images < world_size:
            raise ValueError(f"{num_images} training images cannot be shared out over {world_size} processes")
        self.num_images = num_images
        self.batch_size = min(batch_size, num_images // world_size)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = (0, 0)
        self.sampler = self  # Lightning announces the epoch to `batch_sampler.sampler`

    @property
    def step_size(self) -> int:
        """Images that all ranks together take in a step."""
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def resume(self, epoch: int, position: int) -> None:
        """Begin epoch `epoch` at its image number `position`; other epochs begin at 0."""
        self.start = (epoch, position)

    def __len__(self) -> int:
        """Steps in a whole epoch, wherever it is begun: Lightning counts the steps already done itself."""
        return self.num_images // self.step_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, position = self.start
        first = position if epoch == self.epoch else 0
        order = torch.randperm(self.num_images, generator=fold_in(self.seed, "order", self.epoch)).tolist()
        for begin in range(first, self.num_images - self.step_size + 1, self.step_size):
            begin += self.rank * self.batch_size
            yield [(self.epoch, index) for index in order[begin : begin + self.batch_size]]


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
