"""Streams: equal steps on all ranks, disjoint shards, epochs that differ, and limits that are said."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from diffusion_lit.augmentation import FlipAugmentation
from diffusion_lit.checkpoint import load_checkpoint
from tests.launch import train_in
from tests.repeats import slow_but
from tests.streams import KINDS, NUM_IMAGES, SHARD_OF, VAL, epoch_of, stream, write_stream

WORLD_SIZES = (1, 2, 3)
WORKERS = (0, 2)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    write_stream(kind, folder)
    return folder


@pytest.mark.parametrize(
    ("world_size", "num_workers"), slow_but(((1, 0), (2, 0), (3, 0), (2, 2)), ((1, 0), (2, 0), (3, 0), (2, 2), (3, 2)))
)
def test_shares_are_disjoint_and_all_ranks_take_as_many_steps(
    kind: str, root: Path, world_size: int, num_workers: int
) -> None:
    """Shards of 1 to 9 images: some shares go through theirs many times. The second time is the same."""

    def loader_of(rank: int) -> Any:
        return stream(kind, root, rank, world_size, num_workers=num_workers).train_dataloader()

    epochs: dict[int, list[list[list[int]]]] = {0: [], 1: []}
    for rank in range(world_size):
        loader = loader_of(rank)
        for epoch, ranks in epochs.items():
            ranks.append(epoch_of(loader, epoch))
            assert len(ranks[-1]) == len(loader) == 24 // (2 * world_size)
    assert epochs[0] != epochs[1] and epoch_of(loader_of(world_size - 1), 1) == epochs[1][-1]
    for ranks in epochs.values():
        shares = [
            {SHARD_OF[n] for batch in batches[worker :: max(1, num_workers)] for n in batch}
            for batches in ranks
            for worker in range(max(1, num_workers))
        ]
        assert sum(map(len, shares)) == len(set.union(*shares)), "no shard is in two shares"


@pytest.mark.parametrize("shuffle_buffer", [1, 5, 100])
def test_one_process_sees_every_image_once_before_any_again(kind: str, root: Path, shuffle_buffer: int) -> None:
    data = stream(kind, root, epoch_size=2 * NUM_IMAGES, batch_size=1, shuffle_buffer=shuffle_buffer)
    numbers = [n for batch in epoch_of(data.train_dataloader(), 0) for n in batch]
    first, second = numbers[:NUM_IMAGES], numbers[NUM_IMAGES:]
    assert sorted(first) == sorted(second) == list(range(NUM_IMAGES)) and first != second
    jumps = sum(SHARD_OF[a] != SHARD_OF[b] for a, b in pairwise(first))
    assert (jumps == 5) == (shuffle_buffer == 1), "without a buffer, shard after shard"


def test_the_order_is_a_function_of_the_seed(kind: str, root: Path) -> None:
    orders = [epoch_of(stream(kind, root, seed=seed).train_dataloader(), 0) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_every_image_is_augmented_by_a_draw_of_its_own(kind: str, root: Path, num_workers: int) -> None:
    draws = []
    for rank in range(2):
        data = stream(kind, root, rank, 2, num_workers=num_workers, augmentation=FlipAugmentation())
        loader = data.train_dataloader()
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            draws += [float(draw) for batch in loader for draw in batch.draws]
    assert len(draws) == 48 and (len(set(draws)) == 48 or set(draws) == {0.0, 1.0})


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_validation_is_exact(kind: str, root: Path, world_size: int) -> None:
    for val_size, expected in {1000: VAL, 10: VAL[:10]}.items():
        ranks = [stream(kind, root, rank, world_size, val_size=val_size) for rank in range(world_size)]
        for loaders in ([data.val_dataloader() for data in ranks], [data.test_dataloader() for data in ranks]):
            batches = [epoch_of(loader, 0) for loader in loaders]
            assert sorted(n for rank in batches for batch in rank for n in batch) == list(expected)
            assert len({len(rank) for rank in batches}) == 1


def test_what_streaming_cannot_do_is_said(kind: str, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        stream(kind, root).train_dataloader()
    assert "is streamed: within an epoch of 24 images some may come twice" in caplog.text
    assert "resuming" not in caplog.text
    caplog.clear()
    stream(kind, root, rank=1, world_size=2).train_dataloader()
    assert caplog.text == "", "one rank speaks"


def test_an_epoch_begun_in_its_middle_is_shuffled_anew(kind: str, root: Path) -> None:
    whole = epoch_of(stream(kind, root).train_dataloader(), 3)
    loader = stream(kind, root).train_dataloader()
    loader.batch_sampler.resume(3, 10)
    rest = epoch_of(loader, 3)
    assert len(rest) == 7 and len(loader) == 12 and rest != whole[5:]
    assert epoch_of(loader, 4) == epoch_of(stream(kind, root).train_dataloader(), 4)


@pytest.mark.parametrize(("name", "value"), [("val_size", 0), ("shuffle_buffer", 0), ("epoch_size", 0)])
def test_sizes_out_of_range(kind: str, root: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.{name} must be at least 1, got 0"):
        stream(kind, root, **{name: value})


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint")
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_resumes(
    kind: str, root: Path, num_workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """6 steps an epoch, stopped after 4 and after 8."""
    where = {
        "hugging_face": (f"data.name={root}", "data.streaming=true"),
        "webdataset": (
            f"data.urls='{root}/train-{{0..5}}.tar'",
            f"data.val_urls={root}/val.tar",
            "data.num_classes=3",
        ),
    }[kind]
    options = (
        f"data={kind}",
        *where,
        "data.epoch_size=24",
        "data.batch_size=4",
        "data.resolution=2",
        "data.channels=1",
        f"data.num_workers={num_workers}",
        "model.channel_multipliers=[1]",
        "callback.fid.num_samples=4",
        "callback.sample_grid=null",
        "trainer.val_check_interval=4",
        "trainer.log_every_n_steps=1",
    )
    stands = {"a": (4, 0, 4), "b": (8, 1, 2), "c": (12, 2, 0)}  # steps in all, epoch, steps in it
    before = None
    for run, (steps, epoch, step) in stands.items():
        caplog.clear()
        resume = () if before is None else (f"resume={tmp_path / before}", "callback.fid=null")
        assert train_in(tmp_path / run, *options, *resume, f"trainer.max_steps={steps}").global_step == steps
        checkpoint = load_checkpoint(tmp_path / run)
        state = checkpoint["HuggingFaceData" if kind == "hugging_face" else "WebDatasetData"]
        done = state["epoch"] * 6 + state["step"]
        assert done == steps and state["position"] == 4 * state["step"] and state["epoch"] in (epoch, epoch - 1)
        if before is not None:
            _, epoch, step = stands[before]
            said = f"resuming at batch {step} of epoch {epoch}, which is not exact: the {6 - step} batches left of it"
            assert said in caplog.text
        before = run
