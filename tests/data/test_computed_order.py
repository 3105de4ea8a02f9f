"""The order of a set that is too large to keep one."""

import math
from itertools import chain

import pytest
import torch

from diffusion_lit.data import order
from diffusion_lit.data.computed_order import ComputedOrder
from diffusion_lit.data.computed_shard_order import ComputedShardOrder
from diffusion_lit.data.order import TrainingOrder


@pytest.mark.parametrize("num_images", [2, 3, 10, 255, 256, 257, 10_007])
def test_every_image_comes_once(num_images: int) -> None:
    for epoch in range(3):
        images = ComputedOrder(num_images, 0, epoch)[:]
        assert images.sort().values.equal(torch.arange(num_images))


def test_few_places_lie_outside() -> None:
    """The numbers of two halves of bits are all places, and less than four times as many."""
    for num_images in range(2, 1026):
        assert num_images <= 4 ** ComputedOrder(num_images, 0, 0).half < 4 * num_images


def test_an_order_stays_what_it_is() -> None:
    """A run that an earlier version began is resumed in its own order."""
    assert ComputedOrder(10**8, 1, 2)[:4].tolist() == [29400993, 19155228, 51143173, 6481079]


def test_a_part_is_what_the_whole_has_there() -> None:
    computed = ComputedOrder(1000, 1, 2)
    assert computed[300:420:3].equal(computed[:][300:420:3]) and len(computed[1000:]) == 0


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(ComputedOrder(50, seed, epoch)[:].tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_images_are_equally_likely_at_every_place() -> None:
    """Chi squared of the images at three places over 200 epochs of 5 images: within 5 sigma."""
    counts = torch.zeros(3, 5)
    for epoch in range(200):
        counts[torch.arange(3), ComputedOrder(5, 0, epoch)[:][[0, 2, 4]]] += 1
    chi_squared = ((counts - 40).square() / 40).sum(1)
    assert (chi_squared < 4 + 5 * math.sqrt(2 * 4)).all()


def test_neighbours_are_not_neighbours_any_more() -> None:
    """Of a random order neighbours differ by N / 3 on average, and a place says nothing of its image."""
    images = ComputedOrder(100_000, 0, 0)[:].double()
    places = torch.arange(100_000).double()
    assert images.diff().abs().mean().item() == pytest.approx(100_000 / 3, rel=0.02)
    assert abs(torch.corrcoef(torch.stack([images, places]))[0, 1].item()) < 5 / math.sqrt(100_000)


def test_an_order_of_a_hundred_million_images_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 64 processes, each of which takes its own share, in the middle of an epoch; none makes a table of all."""
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: pytest.fail("a table"))
    num_images, seen = 10**8, set()
    for rank in range(64):
        training = TrainingOrder(num_images, 32, 0, rank, 64)
        training.resume(3, 64 * 32 * 1000)
        batch = next(iter(training))
        assert len(batch) == 32 and {epoch for epoch, _ in batch} == {3}
        seen |= {image for _, image in batch}
    assert len(seen) == 64 * 32 and max(seen) > 0.9 * num_images


def test_a_set_of_just_the_limit_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another version would be resumed in another order."""
    monkeypatch.setattr(order, "MAX_TABLE", 10)
    kinds = [type(order.permute(num_images, 0, 0)) for num_images in (10, 11)]
    kinds += [type(order.permute_shards(sizes, 2, 0, 0)) for sizes in ([4, 6], [4, 7])]
    assert kinds == [torch.Tensor, ComputedOrder, torch.Tensor, ComputedShardOrder]


def test_a_computed_order_is_shared_out_as_a_table_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of processes and batches: the same images in each step."""
    monkeypatch.setattr(order, "MAX_TABLE", 10)
    whole = ComputedOrder(100, 0, 1)[:].tolist()
    for world_size, count in ((1, 4), (2, 2), (4, 1)):
        orders = [TrainingOrder(100, 5, 0, r, world_size, batches_per_step=count) for r in range(world_size)]
        steps = []
        for training in orders:
            training.set_epoch(1)
            steps.append([sorted(share.tolist()) for share in training.steps()])
        merged = [sorted(chain(*parts)) for parts in zip(*steps, strict=True)]
        assert merged == [sorted(whole[i : i + 20]) for i in range(0, 100, 20)]
