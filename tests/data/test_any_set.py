"""What holds for every set that is read by index: all of it is visited, nothing twice, and a run goes on anywhere."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lit.data import Batch, ImageDataModule
from tests.data.prepared_set import KINDS, data_module, numbers, prepare, write_folder
from tests.repeats import slow_but

UNEVEN = (7, 31, 44)


@pytest.fixture(scope="module", params=UNEVEN)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder, the same prepared, and how many training images there are."""
    root = tmp_path_factory.mktemp(f"of_{request.param}")
    prepare(write_folder(root / "folder", request.param), root / "set")
    return root, request.param


def epoch(ranks: list[ImageDataModule], number: int, loaders: dict[int, Any]) -> list[list[list[int]]]:
    """The images of an epoch, by rank and step; labels are checked."""
    visited = []
    for rank, data in enumerate(ranks):
        loader = loaders.setdefault(rank, data.train_dataloader())
        _set_sampler_epoch(loader, number)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.condition.label.tolist() == [i % 2 for i in numbers(batch.images)]
        visited.append([numbers(batch.images) for batch in batches])
    return visited


@pytest.mark.parametrize("num_workers", slow_but([0], [0, 2]))
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_once_an_epoch(root: tuple[Path, int], kind: str, world_size: int, num_workers: int) -> None:
    """Up to the rest that fills no step; ranks are disjoint and take equally many steps; epochs differ."""
    if num_workers and (root[1] != 31 or world_size != 2):
        pytest.skip("workers take long to start, and know nothing of ranks")
    folder, count = root
    batch_size = 4
    ranks = [
        data_module(kind, folder, rank, world_size, batch_size=batch_size, num_workers=num_workers)
        for rank in range(world_size)
    ]
    loaders: dict[int, Any] = {}
    orders = []
    for number in range(2):
        visited = epoch(ranks, number, loaders)
        assert {len(steps) for steps in visited} == {max(1, count // (batch_size * world_size))}
        flat = [image for steps in visited for step in steps for image in step]
        assert len(set(flat)) == len(flat), "no image twice"
        size = min(batch_size, count // world_size) * world_size
        assert len(flat) == count // size * size and set(flat) <= set(range(count))
        orders.append(flat)
    assert orders[0] != orders[1]
    again = [data_module(kind, folder, rank, world_size, batch_size=batch_size) for rank in range(world_size)]
    flat = [image for steps in epoch(again, 1, {}) for step in steps for image in step]
    assert flat == orders[1], "the order is a function of (seed, epoch), with any number of workers"


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_with_other_ranks_visits_the_rest(root: tuple[Path, int], kind: str) -> None:
    """From any step of an epoch of W ranks, W' ranks visit what is left of it, and nothing else."""
    folder, count = root
    if count < 31:
        pytest.skip("fewer images than steps to stop at")
    sizes = (1, 2, 3)
    modules = {size: [data_module(kind, folder, rank, size, batch_size=2) for rank in range(size)] for size in sizes}
    walks = {size: list(zip(*epoch(ranks, 1, {}), strict=True)) for size, ranks in modules.items()}
    others = {size: [data_module(kind, folder, rank, size, batch_size=2) for rank in range(size)] for size in sizes}
    images_of = {
        size: [numbers(data.splits["train"].fetch(range(count))[0]) for data in ranks] for size, ranks in others.items()
    }
    for before, after in product(sizes, repeat=2):
        steps, images = walks[before], images_of[after]
        for stop in range(0, len(steps) + 1, 2):
            seen = {image for step in steps[:stop] for batch in step for image in batch}
            position = stop * 2 * before
            rest = []
            for data, image_at in zip(others[after], images, strict=True):
                order = data.training_order()
                order.resume(1, position)
                order.set_epoch(1)
                rest += [image_at[i] for batch in order for _, i in batch]
            assert len(set(rest)) == len(rest) and not seen & set(rest)
            assert 0 <= count - len(seen) - len(rest) < 2 * after, "all but less than a step is visited"


class Recorder(LightningModule):
    """Learns nothing and remembers which images it saw, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, numbers(batch.images)))
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def train(data: ImageDataModule, max_steps: int, callbacks: list[Callback], resume: Path | None = None) -> Recorder:
    del data.__dict__["process"]  # the trainer's
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module


@pytest.mark.filterwarnings("ignore")  # Lightning's, on loaders without workers
@pytest.mark.parametrize("kind", slow_but(("memmap", "stream"), KINDS))
def test_a_run_resumes_from_every_step(tmp_path: Path, kind: str) -> None:
    """In the middle of an epoch, at its end, in the second: exactly what was not yet seen, in the same order."""
    prepare(write_folder(tmp_path / "folder", 21), tmp_path / "set")
    whole = train(data_module(kind, tmp_path, batch_size=4), 12, [SaveAt(tmp_path)]).seen
    assert [e for e, _ in whole] == [0] * 5 + [1] * 5 + [2] * 2
    for step in range(1, 12):
        workers = 2 if step in (3, 5, 8, 10) and kind == "memmap" else 0
        data = data_module(kind, tmp_path, batch_size=4, num_workers=workers)
        assert train(data, 12, [], tmp_path / f"{step}.ckpt").seen == whole[step:], step
    other = data_module(kind, tmp_path, batch_size=5)
    seen = train(other, 8, [], tmp_path / "3.ckpt").seen  # 12 of 21 images are done, one step of 5 is left: 3 + 1
    rest = [image for e, images in seen if e == 0 for image in images]
    done = [image for _, images in whole[:3] for image in images]
    assert len(rest) == 5 and not set(rest) & set(done)
