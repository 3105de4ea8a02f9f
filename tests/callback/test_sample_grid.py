"""When a grid is drawn, and which images of which classes are in it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from diffusion_lit.callback import EMA, SampleGrid, sample_grid


class Recorder(SampleGrid):
    """Notes at which steps it draws."""

    def sample(self, trainer: Any, module: Any) -> Tensor:
        self.drawn = [*getattr(self, "drawn", []), trainer.global_step]
        return torch.zeros(1, 2, 2, dtype=torch.uint8)


def steps_drawn(folder: Path, rank: int = 0, **options: Any) -> list[int]:
    """At which steps of 4 epochs of 4, of which the last step ends training."""
    callback, module = Recorder(None, str(folder / "samples"), **options), torch.nn.Linear(1, 1)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(is_global_zero=rank == 0, callbacks=[], loggers=[])
    for step in range(1, 17):
        trainer.global_step, trainer.current_epoch = step, (step - 1) // 4
        callback.on_step_end(trainer, module)  # type: ignore[arg-type]
        if step % 4 == 0:
            callback.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    callback.on_train_end(trainer, module)  # type: ignore[arg-type]
    return callback.drawn


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [16]),
        ({"every_n_steps": 5}, [5, 10, 15, 16]),
        ({"every_n_epochs": 2}, [8, 16]),
        ({"every_n_epochs": 3}, [12, 16]),
        ({"every_n_steps": 4, "every_n_epochs": 1}, [4, 8, 12, 16]),
    ],
)
def test_a_step_has_one_picture_and_the_last_has_one(options: dict[str, int], steps: list[int], tmp_path: Path) -> None:
    assert steps_drawn(tmp_path, **options) == steps
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"step_{n:07d}.png" for n in steps]


def test_every_rank_draws_and_the_first_writes(tmp_path: Path) -> None:
    assert steps_drawn(tmp_path, rank=1, every_n_steps=5) == [5, 10, 15, 16]
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_step_has_a_picture_too(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[], loggers=[], global_step=0)
    Recorder(None, str(tmp_path / "samples")).on_train_end(trainer, torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.rglob("*.png")] == ["step_0000000.png"]


@pytest.mark.parametrize(("raw", "average"), [(True, True), (False, True), (True, False)])
def test_pictures_of_the_raw_weights_are_drawn_beside_those_of_an_average(
    raw: bool, average: bool, tmp_path: Path
) -> None:
    seen: list[float] = []

    class Seen(Recorder):
        def sample(self, trainer: Any, module: Any) -> Tensor:
            seen.append(float(module.weight.detach()))
            return super().sample(trainer, module)

    module: Any = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 2.0)
    ema = EMA(0.9)
    ema.align(module)
    ema.average["weight"].fill_(5.0)
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[ema] * average, loggers=[], global_step=3)
    Seen(None, str(tmp_path / "samples"), raw=raw).draw(trainer, module)  # type: ignore[arg-type]
    assert seen == [5.0 if average else 2.0] + [2.0] * (raw and average)
    names = ["samples"] + ["samples_raw"] * (raw and average)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == [
        f"{name}/step_0000003.png" for name in names
    ]


def test_loggers_that_take_images_are_given_them(tmp_path: Path) -> None:
    given: list[Any] = []

    class Board(TensorBoardLogger):
        experiment = SimpleNamespace(add_image=lambda *args: given.append(("tensorboard", *args)))  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

    class Wandb(WandbLogger):
        def __init__(self) -> None:
            pass

        def log_image(self, *args: Any) -> None:  # type: ignore[override]
            given.append(("wandb", *args))

    trainer: Any = SimpleNamespace(loggers=[object(), Board(), Wandb()], global_step=7)
    picture = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    SampleGrid(None, str(tmp_path / "samples")).write(trainer, "denoising", picture)  # type: ignore[arg-type]
    [board, wandb] = given
    assert board == ("tensorboard", "denoising", picture, 7)
    assert (wandb[0], wandb[1], wandb[3]) == ("wandb", "denoising", 7)
    torch.testing.assert_close(wandb[2], [torch.tensor([[[0.0, 0.2], [0.4, 1.0]]])])
    assert (tmp_path / "denoising" / "step_0000007.png").is_file()


def test_each_strip_is_an_image_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images at three steps, of which the first and the last are shown; signals are answered after sampling."""
    order: list[str] = []

    def follow(denoiser: Any, sampler: Any, indices: range, condition: Any, seed: int, device: str) -> Any:
        assert (indices, condition.label.tolist(), seed, device) == (range(2), [0, 1], 5, "cpu")
        estimates = torch.arange(6.0).view(3, 2, 1, 1, 1)
        shown = SimpleNamespace(shown=lambda: [0, 2], decode=lambda frame: 10 * frame)
        return SimpleNamespace(**vars(shown), estimates=estimates, times=torch.tensor([1.0, 0.5, 0.0]))

    def grid(images: Tensor, columns: int, titles: list[str]) -> Tensor:
        assert (columns, titles) == (2, ["t=1.00", "t=0.00"]) and images.shape[1:] == (1, 1, 1)
        return images.flatten()

    monkeypatch.setattr(sample_grid, "DiffusionModule", SimpleNamespace)
    monkeypatch.setattr(sample_grid, "follow", follow)
    monkeypatch.setattr(sample_grid, "image_grid", grid)
    monkeypatch.setattr(sample_grid, "answer_signals", lambda trainer: order.append(trainer))
    module: Any = SimpleNamespace(denoiser=SimpleNamespace(num_classes=3), device="cpu")
    picture = SampleGrid(None, "x", seed=5, strips=2).draw_strips("the trainer", module)  # type: ignore[arg-type]
    assert picture.tolist() == [0, 40, 10, 50] and order == ["the trainer"]


def test_a_grid_is_drawn_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each rank has as many, so that none waits; together they are the images in their order."""
    batches: list[list[int]] = []

    def generate(denoiser: Any, sampler: Any, indices: list[int], *settings: Any, on_step: Any) -> Tensor:
        batches.append(indices)
        return torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1)

    monkeypatch.setattr(sample_grid, "DiffusionModule", SimpleNamespace)
    monkeypatch.setattr(sample_grid, "generate", generate)
    monkeypatch.setattr(sample_grid, "image_grid", lambda images, columns, titles: images.flatten())
    monkeypatch.setattr(sample_grid, "gathered_in_order", lambda own, count: own)
    module: Any = SimpleNamespace(denoiser=SimpleNamespace(num_classes=None), device="cpu", record={})
    callback = SampleGrid(None, "x", rows=3, columns=3, batch_size=4)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1)
    assert callback.sample(trainer, module).tolist() == [*range(9)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    batches.clear()
    for rank in range(2):
        callback.sample(SimpleNamespace(global_rank=rank, world_size=2), module)  # type: ignore[arg-type]
    assert batches == [[0, 2, 4, 6], [8], [1, 3, 5, 7], [0]]


def test_what_cannot_be_drawn_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(sample_grid, "DiffusionModule", SimpleNamespace)
    denoiser = SimpleNamespace(space=SimpleNamespace(check=lambda: checked.append("space")))
    sampler: Any = SimpleNamespace(check=checked.append)
    SampleGrid(sampler, "x").setup(None, SimpleNamespace(denoiser=denoiser), "fit")  # type: ignore[arg-type]
    assert checked == [denoiser, "space"]


@pytest.mark.parametrize("option", ["every_n_steps", "every_n_epochs", "rows", "columns", "batch_size"])
def test_settings_out_of_range_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=rf"callback\.sample_grid\.{option} must be at least 1, got 0"):
        SampleGrid(None, "x", **{option: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_classes", "world_size", "shares", "columns"),
    [
        (None, 1, [[*range(8)]], 4),
        (None, 3, [[0, 3, 6], [1, 4, 7], [2, 5, 0]], 4),  # none draws fewer, or they would wait for each other
        (3, 1, [[*range(6)]], 3),
        (20, 1, [[*range(40)]], 20),
        (21, 1, [[*range(8)]], 4),
    ],
)
def test_ranks_share_out_the_images_and_each_column_is_a_class(
    num_classes: int | None, world_size: int, shares: list[list[int]], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, num = [], sum(map(len, shares)) // columns * columns

    def generate(denoiser: Any, sampler: Any, own: Any, labels: Any, seed: int, device: Any, on_step: Any) -> Tensor:
        drawn.append(own)
        assert seed == 5 and labels == (None if num_classes is None else [i % num_classes for i in range(num)])
        return torch.zeros(len(own), 1, 2, 2)

    def grid(images: Tensor, columns_shown: int, titles: list[str] | None) -> Tensor:
        assert columns_shown == columns
        expected = {None: None, 3: ["a", "b", "c"], 20: [str(i) for i in range(20)], 21: [str(i) for i in range(8)]}
        assert titles == expected[num_classes]
        return images

    monkeypatch.setattr(sample_grid, "DiffusionModule", SimpleNamespace)
    monkeypatch.setattr(sample_grid, "generate", generate)
    monkeypatch.setattr(sample_grid, "gathered_in_order", lambda images, count: torch.zeros(count))
    monkeypatch.setattr(sample_grid, "image_grid", grid)
    record = {"class_names": ["a", "b", "c"]} if num_classes == 3 else {}
    denoiser = SimpleNamespace(num_classes=num_classes)
    module: Any = SimpleNamespace(denoiser=denoiser, device="cpu", record=record)
    for rank in range(world_size):
        trainer: Any = SimpleNamespace(global_rank=rank, world_size=world_size, callbacks=[])
        images = SampleGrid(None, "x", rows=2, columns=4, seed=5).sample(trainer, module)  # type: ignore[arg-type]
        assert len(images) == num
    assert drawn == shares
