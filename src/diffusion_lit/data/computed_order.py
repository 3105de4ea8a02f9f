"""The order of a set that is too large to keep one."""

import torch
from torch import Tensor

from diffusion_lit.random import fold_in

__all__ = ["ComputedOrder"]

ROUNDS = 8
MASK = 2**32 - 1


class ComputedOrder:
    """A permutation of 0..N-1, a function of (seed, epoch), whose places are computed when they are asked for.

    It takes no memory and no time to begin, where a table has 8 bytes for each image on each process, 800 MB for 10^8
    of them. The bits of a place are cut into halves that are mixed into each other in turn (a Feistel network: a
    permutation whatever the mixing); where that leaves 0..N-1, it is repeated until it comes back (Black & Rogaway
    2002, "Ciphers with arbitrary finite domains", section 4), on average less than four times.

    Args:
        num_images: N, at least 2.
        seed, epoch: what it is a function of.
    """

    def __init__(self, num_images: int, seed: int, epoch: int) -> None:
        self.num_images = num_images
        self.half = -(-(num_images - 1).bit_length() // 2)
        """Bits of half a number, rounded up."""
        generator = fold_in(seed, "order", epoch)
        self.keys: list[int] = torch.randint(2**32, (ROUNDS,), generator=generator).tolist()

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, places: slice) -> Tensor:
        """The images at these places, int64."""
        images = self.mix(torch.arange(*places.indices(self.num_images)))
        while (outside := images >= self.num_images).any():
            images[outside] = self.mix(images[outside])
        return images

    def mix(self, numbers: Tensor) -> Tensor:
        """A permutation of the numbers of two halves."""
        low = 2**self.half - 1
        left, right = numbers >> self.half, numbers & low
        for key in self.keys:
            left, right = right, left ^ (scrambled(right ^ key) & low)
        return left << self.half | right


def scrambled(numbers: Tensor) -> Tensor:
    """32 bits in which each depends on every bit of a number (a finalizer by multiplication, as MurmurHash3 has it)."""
    for factor in (0x7FEB352D, 0x846CA68B):
        numbers = numbers ^ numbers >> 16
        numbers = (numbers & MASK) * factor & MASK
    return numbers ^ numbers >> 16
