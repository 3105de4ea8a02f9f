"""The order of images: disjoint over ranks, complete, a function of (seed, epoch), resumable anywhere."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion_lit.data import ArrayImages, Batch, ImageDataModule, Images
from diffusion_lit.data.order import EvaluationOrder, TrainingOrder

WORLD_SIZES = (1, 2, 3)
SIZES = (3, 7, 24, 61)
BATCH_SIZES = (1, 4, 5, 100)
CASES = list(product(WORLD_SIZES, SIZES, BATCH_SIZES))


def training(
    num_images: int, batch_size: int, world_size: int, seed: int = 0, batches_per_step: int = 1
) -> list[TrainingOrder]:
    """The orders of all ranks."""
    return [
        TrainingOrder(num_images, batch_size, seed, rank, world_size, batches_per_step=batches_per_step)
        for rank in range(world_size)
    ]


def steps_of(orders: list[TrainingOrder], epoch: int) -> list[list[list[int]]]:
    """The columns of each step: Lightning ends a step after every n-th batch of an epoch, and after its last."""
    for order in orders:
        order.set_epoch(epoch)
    rounds = [[[i for _, i in batch] for batch in batches] for batches in zip(*orders, strict=True)]
    count, begun = orders[0].batches_per_step, len(orders[0]) - len(rounds)
    columns: list[list[list[int]]] = []
    for number, batches in enumerate(rounds, start=begun):
        if number == begun or number % count == 0:
            columns.append([])
        columns[-1] += batches
    return columns


def epoch_of(orders: list[TrainingOrder], epoch: int) -> list[int]:
    """The images of an epoch as all ranks together visit them: step by step, the ranks in turn."""
    for order in orders:
        order.set_epoch(epoch)
    images: list[int] = []
    for batches in zip(*orders, strict=True):
        for addresses in zip(*batches, strict=True):
            assert all(e == epoch for e, _ in addresses)
            images += [index for _, index in addresses]
    return images


def permutation(num_images: int, epoch: int, seed: int = 0) -> list[int]:
    """An epoch as one process visits it, image by image."""
    return epoch_of(training(num_images, 1, 1, seed), epoch)


@pytest.mark.parametrize(("world_size", "num_images", "batch_size"), CASES)
def test_ranks_share_out_an_epoch(world_size: int, num_images: int, batch_size: int) -> None:
    orders = training(num_images, batch_size, world_size)
    batches = [list(order) for order in orders]
    sizes = {len(batch) for rank in batches for batch in rank}
    assert len(sizes) == 1 and sizes <= set(range(1, batch_size + 1)), "all batches are equally large"
    assert {len(rank) for rank in batches} == {len(order) for order in orders} == {len(batches[0])}
    visited = [index for rank in batches for batch in rank for _, index in batch]
    assert len(set(visited)) == len(visited) and set(visited) <= set(range(num_images)), "each image at most once"
    assert num_images - len(visited) < orders[0].round_size <= batch_size * world_size, "all but a rest are visited"


@pytest.mark.parametrize(("world_size", "num_images", "batch_size"), CASES)
def test_the_epoch_is_the_same_for_any_ranks_and_batches(world_size: int, num_images: int, batch_size: int) -> None:
    for epoch in range(3):
        visited = epoch_of(training(num_images, batch_size, world_size), epoch)
        assert visited == permutation(num_images, epoch)[: len(visited)]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    epochs = {(seed, epoch): tuple(permutation(50, epoch, seed)) for seed in range(3) for epoch in range(4)}
    assert len(set(epochs.values())) == len(epochs), "every epoch of every seed is another one"
    assert all(sorted(order) == list(range(50)) for order in epochs.values())
    orders = training(50, 7, 2, seed=1)
    backwards = {epoch: epoch_of(orders, epoch) for epoch in (3, 1, 2, 0, 1)}
    assert all(tuple(visited) == epochs[1, epoch][: len(visited)] for epoch, visited in backwards.items())


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 1), (1, 4), (2, 4), (3, 3), (3, 100)])
def test_resume_yields_exactly_the_rest(world_size: int, batch_size: int) -> None:
    """Whatever number of ranks and batch size came to the position: 0 .. 31 has those that fit no step of this one."""
    num_images, epoch = 31, 2
    whole = permutation(num_images, epoch)
    for position in range(num_images + 1):
        orders = training(num_images, batch_size, world_size)
        for order in orders:
            order.resume(epoch, position)
        steps = (num_images - position) // orders[0].round_size
        assert epoch_of(orders, epoch) == whole[position : position + steps * orders[0].round_size]
        assert {len(order) for order in orders} == {num_images // orders[0].round_size}, "the length is a whole epoch's"
        for other in (epoch - 1, epoch + 1):
            visited = epoch_of(orders, other)
            assert len(visited) == len(orders[0]) * orders[0].round_size
            assert visited == permutation(num_images, other)[: len(visited)]


@pytest.mark.parametrize(("num_images", "batch_size"), [(48, 3), (50, 3), (59, 3), (24, 1), (97, 6)])
def test_a_step_has_the_same_batches_however_many_ranks_share_it(num_images: int, batch_size: int) -> None:
    """Four batches as 1 x 4, 2 x 2 and 4 x 1; in the short step at an epoch's end, as many as all ranks can fill."""
    whole, left = divmod(num_images // batch_size, 4)
    for epoch, world_size in product(range(2), (1, 2, 4)):
        steps = steps_of(training(num_images, batch_size, world_size, 0, 4 // world_size), epoch)
        assert steps[:whole] == steps_of(training(num_images, batch_size, 4), epoch)
        assert [len(step) for step in steps[whole:]] == [left // world_size * world_size] * (left >= world_size)
        visited = [image for step in steps for images in zip(*step, strict=True) for image in images]
        assert visited == permutation(num_images, epoch)[: len(visited)], "column c of D has every D-th image"


@pytest.mark.parametrize(("world_size", "batch_size", "count"), [(1, 4, 3), (2, 2, 2), (3, 1, 4), (2, 100, 2)])
def test_resuming_between_steps_of_several_batches(world_size: int, batch_size: int, count: int) -> None:
    """From the end of a step of the same kind: the same steps. From any other place: the rest, in the same order."""
    num_images, epoch = 67, 2
    everything = steps_of(training(num_images, batch_size, world_size, 0, count), epoch)
    ends = {0: 0}
    for number, step in enumerate(everything):
        ends[max(ends) + sum(map(len, step))] = number + 1
    for position in range(num_images + 1):
        orders = training(num_images, batch_size, world_size, 0, count)
        for order in orders:
            order.resume(epoch, position)
        rest = steps_of(orders, epoch)
        if position in ends:
            assert rest == everything[ends[position] :]
        visited = [image for step in rest for images in zip(*step, strict=True) for image in images]
        assert visited == permutation(num_images, epoch)[position : position + len(visited)]
        assert num_images - position - len(visited) < orders[0].round_size


def test_a_run_cut_in_three_visits_what_the_whole_run_does() -> None:
    """Steps of 2 x 3 images, then of 1 x 4, then of 3 x 2: the positions add up."""
    num_images, epoch, position = 40, 1, 0
    visited: list[int] = []
    for world_size, batch_size, steps in ((2, 3, 3), (1, 4, 2), (3, 2, 2)):
        orders = training(num_images, batch_size, world_size)
        for order in orders:
            order.resume(epoch, position)
        round_size = world_size * batch_size
        visited += epoch_of(orders, epoch)[: steps * round_size]
        position += steps * round_size
    assert visited == permutation(num_images, epoch)[:position] and position == 38


def test_lightning_announces_the_epoch() -> None:
    """The trainer's own function reaches the order through a DataLoader, so that epochs differ in training."""
    order = TrainingOrder(20, 4, seed=0)
    loader = DataLoader(range(20), batch_sampler=order)  # type: ignore[arg-type]
    for epoch in (0, 5):
        _set_sampler_epoch(loader, epoch)
        assert [index for batch in order for _, index in batch] == permutation(20, epoch)


class Numbers(ImageDataModule):
    """100 images of one pixel, number i of value i."""

    resolution, channels, num_classes = 1, 1, None

    def load(self) -> dict[str, Images]:
        return {"train": ArrayImages(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1))}


class Recorder(LightningModule):
    """Learns nothing and remembers which images it saw in epoch 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.current_epoch == 0:
            self.seen += batch.images.flatten().tolist()
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def train(batch_size: int, max_steps: int, callbacks: list[Callback], resume: Path | None = None) -> list[int]:
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Numbers(batch_size=batch_size), ckpt_path=resume, weights_only=True)
    return module.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's, on loaders without workers
@pytest.mark.parametrize(("before", "steps", "after"), [(10, 4, 10), (20, 2, 10), (20, 3, 7), (10, 4, 20), (10, 3, 25)])
def test_a_trainer_resumes_with_another_batch_size(tmp_path: Path, before: int, steps: int, after: int) -> None:
    """The rest of the epoch is visited, all but less than a batch, whatever steps came before."""
    path = tmp_path / "x.ckpt"
    seen = train(before, steps, [SaveAt(steps, path)])
    assert seen == permutation(100, 0)[: before * steps]
    seen += train(after, steps + 20, [], path)
    assert seen == permutation(100, 0)[: len(seen)]
    assert 100 - len(seen) < after


@pytest.mark.parametrize(("world_size", "num_images", "batch_size"), CASES)
def test_evaluation_takes_every_image_once(world_size: int, num_images: int, batch_size: int) -> None:
    ranks = [EvaluationOrder(num_images, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [list(rank) for rank in ranks]
    assert {len(rank) for rank in batches} == {len(rank) for rank in ranks} == {len(batches[0])}, "as many on each rank"
    assert all(1 <= len(batch) <= batch_size + 1 for rank in batches for batch in rank)
    assert all(epoch == 0 for rank in batches for batch in rank for epoch, _ in batch)
    assert sorted(index for rank in batches for batch in rank for _, index in batch) == list(range(num_images))


@pytest.mark.parametrize(("num_images", "world_size"), [(0, 1), (1, 2), (2, 3)])
def test_too_few_images_for_the_ranks(num_images: int, world_size: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_images} training images .* over {world_size} processes"):
        TrainingOrder(num_images, 4, seed=0, world_size=world_size)
    with pytest.raises(ValueError, match=rf"{num_images} images to evaluate on .* over {world_size} processes"):
        EvaluationOrder(num_images, 4, world_size=world_size)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 3)])
def test_a_single_step_that_is_left_is_still_of_its_epoch(world_size: int, batch_size: int) -> None:
    """Loading processes ask before Lightning announces the epoch: one image fewer, and they are to begin the next."""
    num_images, epoch = 31, 2
    for left, resumed in ((0, epoch), (1, epoch + 1)):
        orders = training(num_images, batch_size, world_size)
        position = num_images - orders[0].round_size + left
        for order in orders:
            order.resume(epoch, position)
        batches = [next(iter(order)) for order in orders]
        visited = [index for addresses in zip(*batches, strict=True) for _, index in addresses]
        begin = position if resumed == epoch else 0
        assert visited == permutation(num_images, resumed)[begin : begin + orders[0].round_size]
        assert {e for batch in batches for e, _ in batch} == {resumed}


def test_a_batch_that_shrinks_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    for rank in range(2):
        assert TrainingOrder(15, 64, 0, rank, world_size=2).batch_size == 7
        assert TrainingOrder(15, 7, 0, rank, world_size=2).batch_size == 7
    [message] = caplog.messages
    assert "data.batch_size=64" in message and "15 training images" in message and "a batch is 7" in message
