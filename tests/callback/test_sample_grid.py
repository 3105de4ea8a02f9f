"""When a grid is drawn, and which images of which classes are in it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lit.callback import SampleGrid, sample_grid


class Recorder(SampleGrid):
    """Notes at which steps it draws."""

    def sample(self, trainer: Any, module: Any) -> Tensor:
        self.drawn = [*getattr(self, "drawn", []), trainer.global_step]
        return torch.zeros(1, 2, 2, dtype=torch.uint8)


def steps_drawn(folder: Path, rank: int = 0, **options: Any) -> list[int]:
    """At which steps of 3 epochs of 4, of which the last step ends training."""
    callback, module = Recorder(None, str(folder / "samples"), **options), torch.nn.Linear(1, 1)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(is_global_zero=rank == 0, callbacks=[], loggers=[])
    for step in range(1, 13):
        trainer.global_step, trainer.current_epoch = step, (step - 1) // 4
        callback.on_step_end(trainer, module)  # type: ignore[arg-type]
        if step % 4 == 0:
            callback.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    callback.on_train_end(trainer, module)  # type: ignore[arg-type]
    return callback.drawn


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [12]),
        ({"every_n_steps": 5}, [5, 10, 12]),
        ({"every_n_epochs": 2}, [8, 12]),
        ({"every_n_steps": 4, "every_n_epochs": 1}, [4, 8, 12]),
    ],
)
def test_a_step_has_one_picture_and_the_last_has_one(options: dict[str, int], steps: list[int], tmp_path: Path) -> None:
    assert steps_drawn(tmp_path, **options) == steps
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"step_{n:07d}.png" for n in steps]


def test_every_rank_draws_and_the_first_writes(tmp_path: Path) -> None:
    assert steps_drawn(tmp_path, rank=1, every_n_steps=5) == [5, 10, 12]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["every_n_steps", "every_n_epochs", "rows", "columns"])
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
