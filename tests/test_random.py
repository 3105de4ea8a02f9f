"""Every random draw has an address of its own."""

from collections.abc import Iterable

import pytest
import torch

from diffusion_lit.random import ImageNoise, fold_in, randn_like, seed_default_generators, slerp

SHAPE = (2, 3, 3)
ADDRESSES: tuple[tuple[int | str, ...], ...] = (
    (0,),
    (1,),
    (0, 0),
    (0, 1),
    (1, 0),
    (0, 0, 0),
    (0, 1, 2),
    (0, 12),
    (0, "train", 0),
    (0, "train", 1),
    (0, "train", 0, 0),
    (0, "train", 1, 0),
    (0, "validate", 0),
    (0, "image", 0),
    (1, "image", 0),
    (-1, "image", 0),
    (2**63, "image", 0),
)


def stream(seed: int, *address: int | str) -> torch.Tensor:
    return torch.randn(64, generator=fold_in(seed, *address))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_always_gives_the_same_stream(address: tuple[int, ...]) -> None:
    torch.manual_seed(5)
    first = stream(*address)
    torch.manual_seed(6)
    assert torch.equal(first, stream(*address))


def test_a_stream_is_the_same_in_every_release() -> None:
    """Golden: changing it would change what every seed means."""
    assert fold_in(7, "image", 3).initial_seed() == 6321198944580919583


def test_different_addresses_give_different_streams() -> None:
    streams = {tuple(stream(*address).tolist()) for address in ADDRESSES}
    assert len(streams) == len(ADDRESSES)


@pytest.mark.parametrize("path", [(0, "image"), (3, "train", 1)])
def test_addresses_that_differ_in_the_last_index_never_share_a_stream(path: tuple[int, ...]) -> None:
    """torch's CPU generator keeps the low 32 bits of its seed: among these a hash would collide about 5 times."""
    kept = {fold_in(*path, index).initial_seed() & 0xFFFFFFFF for index in range(200_000)}
    assert len(kept) == 200_000


def test_neighbouring_streams_are_uncorrelated() -> None:
    """Correlations of 100 pairs over 4096 draws: none beyond 5 standard errors (1 / sqrt(4096) each)."""
    draws = torch.stack([torch.randn(4096, generator=fold_in(0, "image", index)) for index in range(101)])
    correlation = (draws[1:] * draws[:-1]).mean(1)
    assert correlation.abs().max() < 5 / 4096**0.5


def batches(indices: Iterable[int], size: int, calls: int, seed: int = 4) -> torch.Tensor:
    """Each image's first `calls` draws, taken in batches of `size`, [calls, images, C, H, W]."""
    every = list(indices)
    parts = []
    for start in range(0, len(every), size):
        noise = ImageNoise(seed, every[start : start + size], SHAPE)
        parts.append(torch.stack([noise() for _ in range(calls)]))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_image_noise_does_not_depend_on_the_batch(size: int) -> None:
    assert torch.equal(batches(range(10), size, calls=3), batches(range(10), 7, calls=3))


def test_image_noise_follows_the_index_not_the_place() -> None:
    forward, backward = batches(range(6), 6, calls=2), batches(reversed(range(6)), 4, calls=2)
    assert torch.equal(forward, backward.flip(1))


def test_image_noise_differs_by_image_call_and_seed() -> None:
    draws = torch.cat([batches(range(5), 5, calls=3, seed=seed).flatten(0, 1) for seed in (4, 5)]).flatten(1)
    assert len({tuple(row) for row in draws.tolist()}) == 2 * 3 * 5


def test_image_noise_is_standard_gaussian() -> None:
    """36,000 draws: mean and variance within 5 standard errors."""
    draws = batches(range(500), 500, calls=4)
    assert draws.shape == (4, 500, *SHAPE)
    assert abs(float(draws.mean())) < 5 / draws.numel() ** 0.5
    assert abs(float(draws.var()) - 1) < 5 * (2 / draws.numel()) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_randn_like_draws_from_the_generator_in_the_dtype(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 2, dtype=dtype)
    noise = randn_like(x, fold_in(0, 1))
    assert noise.dtype == dtype
    assert torch.equal(noise, torch.randn(3, 2, generator=fold_in(0, 1), dtype=dtype))


def test_between_equal_noise_there_is_nothing_but_it() -> None:
    """The angle is 0, or by rounding no angle at all: the way stays where it is, at every weight."""
    noise = ImageNoise(0, range(200), SHAPE)()
    for weight in (0.0, 0.3, 0.5, 1.0):
        torch.testing.assert_close(slerp(noise, noise, weight), noise)


def test_dropout_is_seeded_as_torch_seeds_it() -> None:
    torch.manual_seed(2**40 + 7)
    expected = torch.rand(3)
    seed_default_generators(2**40 + 7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
