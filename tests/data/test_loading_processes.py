"""A loading process that is lost, in every way in which that shows."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.reduction
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data._utils.signal_handling
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer import call

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.command_line.mistake import explain
from tests.launch import train_in
from tests.repeats import slow_but

MAIN = os.getpid()
STEP = 5
"""The last one that is done; `LastCheckpoint` saves every three."""


class KillLoaders(Callback):
    """Ends all loading processes after a step, and waits until they are gone; and counts the steps."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        type(self).done = trainer.global_step
        if trainer.global_step == self.step:
            for process in multiprocessing.active_children():
                process.kill()
                process.join()


def die_in(function: Callable[..., Any], after: bool = False) -> Callable[..., Any]:
    """`function`, in which a loading process ends when a batch is asked for after step number `STEP`.

    It serves two connections a batch, for the images and for the labels.
    """
    calls = 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += os.getpid() != MAIN
        if calls <= 2 * STEP:
            return function(*arguments)
        if after:
            function(*arguments)
            time.sleep(0.1)  # what the other side sends now stays unread
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


WAYS: dict[str, tuple[str, bool, type[BaseException]]] = {
    "when a connection is made": ("multiprocessing.connection.deliver_challenge", False, EOFError),
    "after greeting": ("multiprocessing.connection.deliver_challenge", True, ConnectionResetError),
    "before the memory is handed over": ("multiprocessing.reduction.send_handle", False, EOFError),
    "before": ("", False, ConnectionRefusedError),
}


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither SIGCHLD nor a look at the processes says that they are gone: as if it had only just happened."""
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "is_alive", lambda self: True)
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", True)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, handler)


def lose_a_process(folder: Path, expected: type[BaseException], step: int | None) -> None:
    """The message names cause and remedy, and what was trained is saved."""
    kill = f"+callback.kill={{_target_: {__name__}.KillLoaders, step: {step or 'null'}}}"
    quiet = (
        "callback.fid=null",
        "callback.sample_grid=null",
        "callback.best_checkpoint=null",
        "trainer.limit_val_batches=1",
    )
    with pytest.raises(expected) as caught:
        train_in(folder, "data.num_workers=1", "data.batch_size=30", "trainer.max_steps=20", kill, *quiet)
    message = explain(caught.value)
    assert message is not None and "a data loading process was ended from outside (" in message
    assert "()" not in message and "resume=RUN" in message
    assert load_checkpoint(folder)["global_step"] == KillLoaders.done == STEP


@pytest.mark.parametrize("way", slow_but(("after greeting", "before"), WAYS))
def test_a_process_that_is_lost_unnoticed_costs_no_step(
    way: str, unnoticed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, after, expected = WAYS[way]
    if place:
        module, _, name = place.rpartition(".")
        function = getattr(getattr(multiprocessing, module.rpartition(".")[2]), name)
        monkeypatch.setattr(place, die_in(function, after))
    lose_a_process(tmp_path, expected, step=None if place else STEP)


def test_a_process_that_is_lost_costs_no_step(tmp_path: Path) -> None:
    lose_a_process(tmp_path, Exception, STEP)


def test_a_process_whose_end_is_said_late_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection ends before the signal comes, which may find Lightning about to handle that error."""
    late = False

    def say() -> None:
        if late:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    def interrupt(*arguments: Any) -> None:
        nonlocal late
        late = True
        signal.raise_signal(signal.SIGCHLD)
        handle(*arguments)

    handle = call._interrupt
    monkeypatch.setattr(call, "_interrupt", interrupt)
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_error_if_any_worker_fails", say)
    lose_a_process(tmp_path, RuntimeError, STEP)
    assert late


def test_a_fault_of_the_data_is_not_blamed_on_the_process(tmp_path: Path) -> None:
    """A loading process that raises what a broken connection raises is there."""
    for error in (EOFError("cut"), ConnectionResetError("by the storage"), OSError("disk")):
        loader = torch.utils.data.DataLoader(Broken(error), num_workers=1)
        for tried in (loader, torch.utils.data.DataLoader(Broken(error))):
            with pytest.raises(type(error)) as caught:
                next(iter(tried))
            assert explain(caught.value) is None


class Broken(torch.utils.data.Dataset[int]):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error
