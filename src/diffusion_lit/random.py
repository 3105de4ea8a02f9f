"""Every random draw has an address: (seed, rank, step) in training, (seed, image index) in sampling."""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

__all__ = ["ImageNoise", "fold_in", "interpolated_noise", "randn_like", "seed_default_generators", "slerp"]

_ODD = 0x9E3779B1  # 2^32 / golden ratio: multiplication by an odd number permutes the integers mod 2^32


def fold_in(seed: int, *address: int | str, device: torch.device | str = "cpu") -> Generator:
    """A generator whose stream is a function of `seed` and `address` alone.

    torch's CPU generator keeps only the low 32 bits of its seed, so a plain hash would give two of 50,000
    images the same noise about one time in four. Here the last index enters by a permutation of the 32-bit
    integers: addresses that differ only in the last index never share a stream.

    Args:
        seed: any integer.
        address: names and numbers below the seed, for instance ("train", rank, step); the last is a number.
        device: where the generator draws.
    """
    *path, last = (seed, *address)
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    high, low = divmod(int.from_bytes(digest, "big"), 2**32)
    return Generator(device).manual_seed((high >> 1) << 32 | (low + int(last) * _ODD) % 2**32)


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed what draws without a generator of its own, such as dropout, on the CPU and on `device`.

    `torch.manual_seed` does so on every kind of device, and notes its caller for each that has not been used yet: it
    takes a hundred times as long.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def randn_like(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard Gaussian noise of the shape, dtype and device of `x`."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


class ImageNoise:
    """A source of standard Gaussian batches in which image i depends on (seed, i) only.

    Each call gives the next batch [B, *shape]. Images keep their own streams, so that an image is the same
    whatever batch, or rank, it is drawn in.

    Args:
        seed: any integer.
        indices: the index of each image of the batch.
        shape: (C, H, W).
        device: where the batch is put; the draw itself is on the CPU, the same for every accelerator.
    """

    def __init__(
        self, seed: int, indices: Iterable[int], shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.generators = [fold_in(seed, "image", index) for index in indices]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        draws = [torch.randn(self.shape, generator=g, dtype=torch.float32) for g in self.generators]
        return torch.stack(draws).to(self.device)


def interpolated_noise(
    seed: int, indices: Iterable[int], length: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Batches between those of `ImageNoise`: a way of `length` >= 2 images leads from each image's noise to the next's.

    Images are numbered along the ways: the first `length` lead from the noise of image 0 to that of image 1, both
    included, the next from 1 to 2. The other arguments are those of `ImageNoise`.
    """
    ways, places = zip(*(divmod(i, length) for i in indices), strict=True)
    left, right = ImageNoise(seed, ways, shape, device), ImageNoise(seed, [way + 1 for way in ways], shape, device)
    weight = torch.tensor(places, dtype=torch.float32, device=device).view(-1, 1, 1, 1) / (length - 1)
    return lambda: slerp(left(), right(), weight)


def slerp(a: Tensor, b: Tensor, weight: Tensor | float) -> Tensor:
    """From the noise `a` (weight 0) to `b` (1) along a great circle, image by image (Shoemake 1985).

    The mean of two independent Gaussian draws is too short to be one; every point of this way is long enough.
    `a` and `b` are [B, C, H, W], `weight` is in [0, 1], broadcastable to [B, 1, 1, 1].
    """
    cosine = torch.cosine_similarity(a.flatten(1).double(), b.flatten(1).double()).clamp(-1, 1)
    angle = torch.acos(cosine).clamp(min=1e-6).view(-1, 1, 1, 1)
    left, right = torch.sin((1 - weight) * angle) / torch.sin(angle), torch.sin(weight * angle) / torch.sin(angle)
    return left.to(a.dtype) * a + right.to(a.dtype) * b
