"""When a run is saved, which files are kept, and after which faults: with a trainer that only counts its steps."""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_lit.callback import last_checkpoint
from diffusion_lit.callback.last_checkpoint import LastCheckpoint, answer_signals
from diffusion_lit.files import UnwritableError, keep
from diffusion_lit.terminal.interruption import Interrupted


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
    figures: list[int] = []
    trainer.loggers.append(SimpleNamespace(save=lambda: figures.append(trainer.global_step)))
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
    assert trainer.saves == [*expected, stopped] == figures


def test_a_run_that_ends_by_its_epochs_is_saved_at_its_end(tmp_path: Path) -> None:
    trainer: Any = Counter(max_steps=-1)
    callback = begun(tmp_path, trainer)
    step(callback, trainer, 2)
    for _ in range(2):
        callback.on_train_end(trainer, MODULE)
    assert trainer.saves == [2]


@pytest.mark.parametrize("keep_last", [1, 2, 3, 9])
def test_as_many_checkpoints_are_kept_as_asked_for(
    keep_last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = Counter()
    kept_before: list[str] = []

    def link_noted(path: Path, name: Path, link: Any = os.link) -> None:
        kept_before.append(path.read_text())
        link(path, name)

    monkeypatch.setattr(os, "link", link_noted)
    callback = begun(tmp_path, trainer, 1, keep_last)
    step(callback, trainer, 5)
    callback.save(trainer)  # again at the same step: nothing is lost
    kept = [5, 4, 3, 2, 1][:keep_last]
    names = {"last.ckpt" if n == 5 else f"last_step_{n:07d}.ckpt": str(n) for n in kept}
    assert {path.name: path.read_text() for path in (tmp_path / "checkpoints").iterdir()} == names
    assert kept_before == ["1", "2", "3", "4"] * (keep_last > 1), "a single one is not copied, which can take long"
    other: Any = Counter(is_global_zero=False, global_step=5)
    step(begun(tmp_path, other, 1), other)
    assert len(list((tmp_path / "checkpoints").iterdir())) == len(kept), "the first rank alone removes files"
    fewer: Any = Counter(global_step=6, max_steps=9)
    step(begun(tmp_path, fewer, 1), fewer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("step_of_last", [4, None])
def test_what_an_earlier_process_left_is_kept_by_its_own_step(step_of_last: int | None, tmp_path: Path) -> None:
    """Its last checkpoint may be older than the one that is resumed, or damaged, which would replace a good one."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"config": {"seed": 1}, "global_step": step_of_last}, folder / "last.ckpt")
    left = (folder / "last.ckpt").read_bytes()[: None if step_of_last else 100]
    (folder / "last.ckpt").write_bytes(left)
    (folder / "last_step_0000006.ckpt").write_bytes(b"6")
    trainer: Any = Counter(global_step=6, max_steps=20)
    step(begun(tmp_path, trainer, 1, keep_last=4), trainer, 2)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = {"last_step_0000004.ckpt": left} if step_of_last else {}
    assert files == {"last.ckpt": b"8", "last_step_0000007.ckpt": b"7", "last_step_0000006.ckpt": b"6", **kept}


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


def test_a_signal_that_comes_while_a_checkpoint_is_written_waits_for_it(tmp_path: Path) -> None:
    def save_checkpoint(path: Path, weights_only: bool) -> None:
        callback.interruption.receive(15, None)
        saves.append(trainer.global_step)

    saves: list[int] = []
    trainer: Any = Counter(global_step=6, save_checkpoint=save_checkpoint)
    callback = begun(tmp_path, trainer)
    with pytest.raises(Interrupted):
        step(callback, trainer)
    callback.interruption.number = 0
    with pytest.raises(Interrupted):
        callback.on_validation_end(trainer, MODULE)
    assert saves == [7, 7] and not callback.interruption.held
    trainer.world_size = 2
    callback.on_validation_end(trainer, MODULE)  # the ranks agree later


def test_several_ranks_hold_signals_and_stop_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hears in each of the places where ranks ask each other that another one was sent a signal."""
    sizes: list[int] = []
    sent: list[tuple[int, bool]] = []
    heard = 0

    class Heard:
        def __init__(self, world_size: int) -> None:
            sizes.append(world_size)

        def exchange(self, number: int, now: bool = False) -> int:
            sent.append((number, now))
            return heard

    monkeypatch.setattr(last_checkpoint, "SharedNumber", Heard)
    alone: Any = Counter()
    callback = LastCheckpoint(str(tmp_path / "checkpoints"), 100)
    callback.on_sanity_check_start(alone, MODULE)
    assert not callback.interruption.started, "nothing is known of the ranks before"
    callback.on_train_start(alone, MODULE)
    assert callback.interruption.started and not callback.interruption.held and {*sizes} == {1}
    sizes.clear()
    trainer: Any = Counter(world_size=2)
    callback = LastCheckpoint(str(tmp_path / "checkpoints"), 100)
    callback.on_sanity_check_start(trainer, MODULE)
    assert callback.interruption.held
    callback.on_validation_batch_start(trainer, MODULE, None, 0)
    callback.on_validation_epoch_end(trainer, MODULE)
    callback.on_train_start(trainer, MODULE)
    assert callback.interruption.started and sizes == [1, 2], "they are connected once"
    callback.interruption.number = 15
    step(callback, trainer)
    assert callback.interruption.held, "this rank waits until all hear of its own signal"
    callback.on_train_end(trainer, MODULE)
    assert sent == [(0, False), (0, True), (15, False), (0, True)]
    heard, callback.interruption.number = 15, 0
    for ask in (
        lambda: callback.on_validation_batch_start(trainer, MODULE, None, 0),
        lambda: callback.on_validation_epoch_end(trainer, MODULE),
        lambda: step(callback, trainer),
    ):
        with pytest.raises(Interrupted, match="SIGTERM"):
            ask()
    assert trainer.saves == [1, 2]


@pytest.fixture
def child_handler() -> Iterator[list[int]]:
    """The signals that a handler like torch's is given: it raises where a loading process has ended."""

    def lose(number: int, frame: FrameType | None) -> None:
        given.append(number)
        raise RuntimeError("a loading process has ended")

    given: list[int] = []
    before = signal.signal(signal.SIGCHLD, lose)
    yield given
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("ended", [True, False])
def test_a_loading_process_that_ends_does_not_stop_a_step(
    ended: bool, child_handler: list[int], tmp_path: Path
) -> None:
    """Until the run is over, or has failed."""
    trainer: Any = Counter()
    handler = signal.getsignal(signal.SIGCHLD)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(begun, tmp_path, trainer).result()  # where Python takes no handlers
    assert signal.getsignal(signal.SIGCHLD) is handler
    callback = begun(tmp_path, trainer)
    signal.raise_signal(signal.SIGCHLD)
    assert child_handler == [signal.SIGCHLD]
    if ended:
        callback.teardown(trainer, MODULE, "fit")
    else:
        callback.on_exception(trainer, MODULE, ValueError())
    assert signal.getsignal(signal.SIGCHLD) is handler
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    begun(tmp_path, trainer)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, "none but torch's is replaced"


def test_a_folder_that_is_removed_meanwhile_is_created_again_and_this_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer: Any = Counter()
    callback = begun(tmp_path, trainer, 1)
    step(callback, trainer)
    assert not caplog.messages
    shutil.rmtree(callback.path.parent)
    trainer.is_global_zero = False
    step(callback, trainer)
    assert not caplog.messages, "the first rank says it"
    shutil.rmtree(callback.path.parent)
    trainer.is_global_zero = True
    step(callback, trainer)
    [message] = caplog.messages
    assert f"{tmp_path} was removed or moved" in message and callback.path.is_file()


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
    LastCheckpoint(str(tmp_path / "checkpoints"), 100).on_exception(trainer, MODULE, fault)  # before the first step
    callback = begun(tmp_path, trainer)
    step(callback, trainer, 2)
    trainer.world_size = world_size
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    callback.on_exception(trainer, MODULE, fault)
    assert trainer.saves == [] and getattr(fault, "saved", None) is None, "in the middle of a step"
    callback.on_step_end(trainer, MODULE)
    for _ in range(2):
        callback.on_exception(trainer, MODULE, fault)
    assert trainer.saves == [2] * saves
    assert [f"step 2 was saved to {callback.path}" in message for message in caplog.messages] == [True] * saves
    assert getattr(fault, "saved", None) == (tmp_path if isinstance(fault, Interrupted) else None)


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
    assert LastCheckpoint("x", 1).keep_last == 1


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
