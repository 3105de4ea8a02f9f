"""The order of a stream that is too large to keep one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lit.data.computed_order import ROUNDS, half_bits, permuted
from diffusion_lit.random import fold_in

__all__ = ["ComputedShardOrder"]


class ComputedShardOrder:
    """An order in which few shards are being read at a time, whose places are computed when they are asked for.

    As `permute_shards` has it, the shards are shuffled, and the images within each; of the row of all images, cut into
    lanes, one of each lane is visited in turn. It takes memory for each shard, and none for each image.

    Args:
        sizes: how many images each shard has; they are numbered through.
        num_lanes: shards that are being read at a time.
        seed, epoch: what it is a function of.
    """

    def __init__(self, sizes: Sequence[int], num_lanes: int, seed: int, epoch: int) -> None:
        generator = fold_in(seed, "order", epoch)
        counts = torch.tensor(sizes)
        shuffled = torch.randperm(len(sizes), generator=generator)
        self.sizes, self.firsts = counts[shuffled], (counts.cumsum(0) - counts)[shuffled]
        self.ends = self.sizes.cumsum(0)
        """In the row, of each shard."""
        self.half = torch.tensor([half_bits(size) for size in sizes])[shuffled]
        self.keys = torch.randint(2**32, (ROUNDS, len(sizes)), generator=generator)
        self.num_images = sum(sizes)
        self.length = -(-self.num_images // num_lanes)
        self.whole, self.rest = divmod(self.num_images, self.length)
        """Lanes of full length, and the images of one more; further ones are empty."""

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, places: slice) -> Tensor:
        """The images at these places, int64."""
        row = self.in_row(torch.arange(*places.indices(self.num_images)))
        shard = torch.searchsorted(self.ends, row, right=True)
        sizes, first = self.sizes[shard], self.firsts[shard]
        inside = row - self.ends[shard] + sizes
        return first + permuted(inside, sizes, self.half[shard], self.keys[:, shard])

    def in_row(self, places: Tensor) -> Tensor:
        """Where in the row of all images the visited places lie."""
        lanes = self.whole + 1
        begun = self.rest * lanes  # places before the lane that is not full ends
        later = (places - begun).clamp(min=0)
        step = torch.where(places < begun, places // lanes, self.rest + later // self.whole)
        lane = torch.where(places < begun, places % lanes, later % self.whole)
        return lane * self.length + step
