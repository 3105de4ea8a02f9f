"""When a run is saved, which files are kept, and after which faults: with a trainer that only counts its steps."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_lit.callback.last_checkpoint import LastCheckpoint, answer_signals, keep
from diffusion_lit.files import UnwritableError
from diffusion_lit.interruption import Interrupted


class Counter(SimpleNamespace):
    """A trainer whose checkpoints hold the number of the step."""

    global_step, max_steps, world_size, ckpt_path = 0, 7, 1, None
    should_stop = sanity_checking = interrupted = False
    is_global_zero = True

    def __init__(self, **options: Any) -> None:
        super().__init__(loggers=[], saves=[], **options)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        self.saves.append(self.global_step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(str(self.global_step))


MODULE: Any = SimpleNamespace()


def begun(folder: Path, trainer: Any, every_n_steps: int = 100, keep_last: int = 1) -> LastCheckpoint:
    callback = LastCheckpoint(str(folder / "checkpoints"), every_n_steps, keep_last)
    callback.on_train_start(trainer, MODULE)
    return callback


def step(callback: LastCheckpoint, trainer: Any, count: int = 1) -> None:
    for _ in range(count):
        callback.on_train_batch_start(trainer, MODULE, None, 0)
        trainer.global_step += 1
        callback.on_step_end(trainer, MODULE)


@pytest.mark.parametrize(("every", "stopped", "saves"), [(3, 7, [3, 6, 7]), (7, 7, [7]), (100, 7, [7]), (3, 5, [3, 5])])
def test_a_run_is_saved_every_so_often_and_at_its_last_step(
    every: int, stopped: int, saves: list[int], tmp_path: Path
) -> None:
    trainer: Any = Counter()
    callback = begun(tmp_path, trainer, every)
    step(callback, trainer, stopped - 1)
    trainer.should_stop = stopped < trainer.max_steps
    callback.on_validation_end(trainer, MODULE)
    step(callback, trainer)
    callback.on_train_end(trainer, MODULE)
    expected = sorted([*saves, stopped - 1]) if trainer.should_stop else saves
    assert trainer.saves == expected
    callback.on_validation_end(trainer, MODULE)
    assert trainer.saves == [*expected, stopped], "the last step's validation is done"
    trainer.sanity_checking = True
    callback.on_validation_end(trainer, MODULE)
    assert trainer.saves == [*expected, stopped]


@pytest.mark.parametrize("keep_last", [1, 2, 3, 9])
def test_as_many_checkpoints_are_kept_as_asked_for(keep_last: int, tmp_path: Path) -> None:
    trainer: Any = Counter()
    callback = begun(tmp_path, trainer, 1, keep_last)
    step(callback, trainer, 5)
    callback.save(trainer)  # again at the same step: nothing is lost
    kept = [5, 4, 3, 2, 1][:keep_last]
    names = {"last.ckpt" if n == 5 else f"last_step_{n:07d}.ckpt": str(n) for n in kept}
    assert {path.name: path.read_text() for path in (tmp_path / "checkpoints").iterdir()} == names
    other: Any = Counter(is_global_zero=False, global_step=5)
    step(begun(tmp_path, other, 1), other)
    assert len(list((tmp_path / "checkpoints").iterdir())) == len(kept), "the first rank alone removes files"
    fewer: Any = Counter(global_step=6, max_steps=9)
    step(begun(tmp_path, fewer, 1), fewer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_signal_is_answered_after_the_step_and_what_was_trained_is_saved(tmp_path: Path) -> None:
    trainer: Any = Counter()
    callback = begun(tmp_path, trainer)
    step(callback, trainer, 2)
    assert not callback.interruption.held
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    assert callback.interruption.held, "in the middle of a step it waits"
    callback.interruption.number = 15
    with pytest.raises(Interrupted) as caught:
        step(callback, trainer)
    assert (caught.value.exit_code, caught.value.saved, trainer.saves) == (143, tmp_path, [3])
    trainer.callbacks = [object(), callback]
    with pytest.raises(Interrupted):
        answer_signals(trainer)
    answer_signals(SimpleNamespace(callbacks=[]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "world_size", "saves"),
    [
        (ValueError("a file"), 1, True),
        (ValueError("a file"), 2, False),  # several could not agree on it
        (Interrupted(15), 2, True),
        (KeyboardInterrupt(), 1, False),
        (FloatingPointError(), 1, False),
        (UnwritableError("full"), 1, False),
    ],
)
def test_a_fault_between_two_steps_loses_none(
    fault: BaseException, world_size: int, saves: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer: Any = Counter()
    callback = begun(tmp_path, trainer)
    step(callback, trainer, 2)
    trainer.world_size = world_size
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    callback.on_exception(trainer, MODULE, fault)
    assert trainer.saves == [], "in the middle of a step"
    callback.between_steps = True
    for _ in range(2):
        callback.on_exception(trainer, MODULE, fault)
    assert trainer.saves == [2] * saves
    assert [f"step 2 was saved to {callback.path}" in message for message in caplog.messages] == [True] * saves
    if isinstance(fault, Interrupted):
        assert fault.saved == tmp_path


def test_a_resumed_run_without_a_step_left_has_the_checkpoint_too(tmp_path: Path) -> None:
    written: list[Any] = []

    def load(path: str, weights_only: bool) -> dict[str, int]:
        assert weights_only and path == "old.ckpt"
        return {"step": 7, "run": 1}

    io = SimpleNamespace(load_checkpoint=load, save_checkpoint=lambda *given: written.append(given))
    trainer: Any = Counter(global_step=7, ckpt_path="old.ckpt", strategy=SimpleNamespace(checkpoint_io=io))
    callback = begun(tmp_path, trainer)
    module: Any = SimpleNamespace(record={"run": 2})
    callback.on_train_end(trainer, module)
    assert written == [({"step": 7, "run": 2}, callback.path)] and trainer.saves == []
    callback.path.parent.mkdir()
    callback.path.write_text("7")
    callback.on_train_end(trainer, module)
    assert len(written) == 1


@pytest.mark.parametrize("option", ["every_n_steps", "keep_last"])
def test_settings_out_of_range_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=rf"callback\.last_checkpoint\.{option} must be at least 1, got 0"):
        LastCheckpoint(**{"folder": "x", "every_n_steps": 1, option: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_stays_when_the_first_is_given_away(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "not on this system")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("new")
    second.write_text("old")
    keep(first, second)
    assert (first.stat().st_ino == second.stat().st_ino) == links
    first.unlink()
    assert second.read_text() == "new"
