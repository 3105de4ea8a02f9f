"""The order of a set that is too large to keep one."""

import torch
from torch import Tensor

from diffusion_lit.random import fold_in

__all__ = ["ROUNDS", "ComputedOrder", "half_bits", "permuted"]

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
        self.half = half_bits(num_images)
        generator = fold_in(seed, "order", epoch)
        self.keys = torch.randint(2**32, (ROUNDS, 1), generator=generator)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, places: slice) -> Tensor:
        """The images at these places, int64."""
        numbers = torch.arange(*places.indices(self.num_images))
        sizes, half = (torch.full_like(numbers, value) for value in (self.num_images, self.half))
        return permuted(numbers, sizes, half, self.keys.expand(-1, len(numbers)))


def half_bits(num_images: int) -> int:
    """Bits of half a number below `num_images`, rounded up."""
    return -(-(num_images - 1).bit_length() // 2)


def permuted(numbers: Tensor, sizes: Tensor, half: Tensor, keys: Tensor) -> Tensor:
    """What each of `numbers` [n] is in a permutation of 0..size - 1 by its own `keys` [ROUNDS, n], of `half_bits`."""
    images = mixed(numbers, half, keys)
    outside = (images >= sizes).nonzero()[:, 0]
    while len(outside):
        again = mixed(images[outside], half[outside], keys[:, outside])
        images[outside] = again
        outside = outside[again >= sizes[outside]]
    return images


def mixed(numbers: Tensor, half: Tensor, keys: Tensor) -> Tensor:
    """A permutation of the numbers of two halves."""
    low = (1 << half) - 1
    left, right = numbers >> half, numbers & low
    for key in keys:
        left, right = right, left ^ (scrambled(right ^ key) & low)
    return left << half | right


def scrambled(numbers: Tensor) -> Tensor:
    """32 bits in which each depends on every bit of a number (a finalizer by multiplication, as MurmurHash3 has it)."""
    for factor in (0x7FEB352D, 0x846CA68B):
        numbers = numbers ^ numbers >> 16
        numbers = (numbers & MASK) * factor & MASK
    return numbers ^ numbers >> 16
