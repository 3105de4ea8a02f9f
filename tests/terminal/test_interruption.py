"""Being asked to stop, wherever a run is: what was trained is saved, and the exit code says why it ended."""

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.callback import last_checkpoint
from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.distributed.ranks import be_parent, launched_by, outlive_nobody
from diffusion_lit.terminal import interruption
from diffusion_lit.terminal.interruption import Interrupted, Interruption
from tests.chaos import wrap_drawing
from tests.figures import scalars, table
from tests.launch import PATIENCE, TINY, model_figures, run_forked, train_in

QUIET = (
    "callback.sample_grid=null",
    "callback.best_checkpoint=null",
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=3",
)

PROBE = "tests.terminal.test_interruption.Signal"


class Signal(Callback):
    """Sends its own process a signal, at one place of a run on one rank."""

    def __init__(self, place: str, number: int, step: int, rank: int = 0) -> None:
        self.place, self.number, self.step, self.rank = place, number, step, rank

    def send(self, trainer: Trainer, place: str) -> None:
        if (self.place, self.step, self.rank) == (place, trainer.global_step, trainer.global_rank):
            os.kill(os.getpid(), self.number)
            time.sleep(0.01)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        wrap_drawing(trainer, self.before)

    def before(self, place: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def signalled(trainer: Trainer, pl_module: LightningModule) -> Any:
            self.send(trainer, place)
            return work(trainer, pl_module)

        return signalled

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "start")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "step")

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.send(trainer, "validation")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_in(folder, *QUIET)
    return folder


@pytest.mark.parametrize(
    "place, number, saved",
    [
        pytest.param("start", signal.SIGTERM, None, marks=pytest.mark.slow),
        ("step", signal.SIGHUP, 4),
        pytest.param("validation", signal.SIGUSR1, 3, marks=pytest.mark.slow),
        ("fid", signal.SIGTERM, 3),
    ],
)
def test_a_signal_ends_a_run_with_its_code_and_loses_nothing(
    place: str, number: signal.Signals, saved: int | None, undisturbed: Path, tmp_path: Path
) -> None:
    """And the run that continues is the undisturbed one to the bit, its table of figures included."""
    probe = f"+callback.probe={{_target_: {PROBE}, place: {place}, number: {int(number)}, "
    probe += f"step: {0 if saved is None else 3}}}"
    stopped = run_forked("train", *TINY, *QUIET, probe, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert stopped.returncode == 128 + number and "Traceback" not in stopped.stderr, stopped.stderr
    after = {"step": " after this step, and saving"}.get(place, "")
    assert stopped.stderr.count(f"{number.name}: stopping{after}; a second one stops at once\n") == 1
    if saved is None:
        assert "before there was anything to save" in stopped.stderr
        return
    assert f"stopped by {number.name}; everything is saved" in stopped.stderr
    assert load_checkpoint(tmp_path / "run")["global_step"] == saved
    train_in(tmp_path / "next", *QUIET, "+callback.probe=null", f"resume={tmp_path / 'run'}")
    whole, after = load_checkpoint(undisturbed), load_checkpoint(tmp_path / "next")
    assert all(torch.equal(w, after["state_dict"][name]) for name, w in whole["state_dict"].items())
    assert model_figures(undisturbed) == model_figures(tmp_path / "next")


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [[("validation", 1, 3), ("fid", 0, 6)], [("grid", 1, 7)]])
def test_a_signal_to_one_of_two_ranks_stops_both_where_they_are(
    cuts: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    """A run that is cut at a place, on a rank, at a step, and resumed each time, is the undisturbed one to the bit."""
    importlib.import_module("torch.utils.tensorboard")  # once, for all the processes that are copies of this one
    run, two = tmp_path / "run", ("trainer.devices=2", "data.batch_size=30")
    options = (
        *TINY,
        *two,
        "trainer.max_steps=7",
        "callback.last_checkpoint.every_n_steps=100",
        "logger=[csv,tensorboard]",
    )
    options += ("trainer.log_every_n_steps=4",)
    for place, rank, step in cuts:
        probe = f"+callback.probe={{_target_: {PROBE}, place: {place}, rank: {rank}, "
        probe += f"number: {int(signal.SIGTERM)}, step: {step}}}"
        args = (*options, probe, f"hydra.run.dir={run}", *([f"resume={run}"] if run.exists() else ()))
        stopped = run_forked("train", *args, cwd=tmp_path)
        assert stopped.returncode == 128 + signal.SIGTERM and "Traceback" not in stopped.stderr, stopped.stderr
        assert stopped.stderr.count("stopped by SIGTERM; everything is saved") == 2
        assert load_checkpoint(run)["global_step"] == step
    for name, more in (("run", ["+callback.probe=null", f"resume={run}"]), ("whole", [])):
        done = run_forked("train", *options, *more, f"hydra.run.dir={tmp_path / name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    whole, after = load_checkpoint(tmp_path / "whole"), load_checkpoint(run)
    assert all(torch.equal(w, after["state_dict"][name]) for name, w in whole["state_dict"].items())
    assert model_figures(tmp_path / "whole") == model_figures(run)
    for folder in (run, tmp_path / "whole"):
        assert scalars(folder) == table(folder)  # and each figure once, of two ranks and of all processes


def test_that_a_signal_was_heard_is_said_before_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the thread that says it has little of a busy machine."""
    said: list[int] = []

    def acknowledge(number: int, when: str) -> None:
        time.sleep(0.1)
        said.append(number)

    monkeypatch.setattr(interruption, "acknowledge", acknowledge)
    with pytest.raises(Interrupted), Interruption():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert said == [signal.SIGUSR1]


def in_a_fork(task: Callable[[], None]) -> int:
    if (pid := os.fork()) == 0:
        try:
            task()
        finally:
            os._exit(99)
    return pid


def test_a_second_signal_ends_a_process_that_hangs() -> None:
    def hang() -> None:
        with Interruption() as interruption:
            interruption.held = interruption.started = True
            os.write(said, b"1")
            while not interruption.number:
                time.sleep(0.1)
            os.write(said, b"2")
            while True:
                time.sleep(0.1)

    heard, said = os.pipe()
    pid = in_a_fork(hang)
    assert os.read(heard, 1) == b"1"
    os.kill(pid, signal.SIGTERM)
    assert os.read(heard, 1) == b"2"
    time.sleep(1.3)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM
    for descriptor in (heard, said):
        os.close(descriptor)


def test_a_process_that_hangs_before_it_trains_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.terminal.interruption.START_PATIENCE", 0.2)

    def hang() -> None:
        with Interruption() as interruption:
            interruption.held = True
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                time.sleep(0.1)

    assert os.waitstatus_to_exitcode(os.waitpid(in_a_fork(hang), 0)[1]) == 128 + signal.SIGTERM


def test_held_signals_wait_and_others_interrupt() -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    before = [signal.getsignal(number) for number in numbers]
    with Interruption() as interruption:
        interruption.started = interruption.held = True
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.number == signal.SIGUSR1
        interruption.held = False
        with pytest.raises(Interrupted, match="stopped by SIGUSR1") as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_code == 128 + signal.SIGUSR1
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_at_logging_s_locks_is_raised_after_them() -> None:
    """Around forks Python would drop it there."""
    code = "def locked():\n    kill(pid, number)\n    for _ in range(1000):\n        pass\n    released.append(True)"
    names: dict[str, Any] = {"__name__": "logging", "kill": os.kill, "pid": os.getpid(), "number": signal.SIGTERM}
    names["released"] = []
    exec(code, names)
    with Interruption():
        with pytest.raises(Interrupted, match="SIGTERM"):
            names["locked"]()
            time.sleep(10)
        assert names["released"] == [True]


def test_where_there_is_no_signal_of_lost_children_a_run_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(last_checkpoint, "SIGCHLD", None)
    monkeypatch.delattr(signal, "SIGCHLD")
    trainer = train_in(tmp_path, *QUIET, "callback.fid=null", "trainer.max_steps=2")
    assert trainer is not None and trainer.global_step == 2


@pytest.mark.parametrize("late", [False, True])
def test_a_rank_does_not_outlive_the_process_that_started_it(late: bool) -> None:
    """Nor if that has ended before the rank comes to look."""
    (reader, writer), (started, begun) = os.pipe(), os.pipe()

    def rank() -> None:
        os.environ["LOCAL_RANK"] = "1"
        os.close(reader)
        parent = os.getppid()
        os.write(begun, b"!" * late)
        while late and os.getppid() == parent:
            time.sleep(0.01)
        outlive_nobody()
        os.write(begun, b"!")
        time.sleep(600)

    def first() -> None:
        be_parent()
        in_a_fork(rank)
        os.read(started, 1)

    pid = in_a_fork(first)
    os.close(writer)
    os.waitpid(pid, 0)
    ended = time.monotonic()
    assert (
        os.read(reader, 1) == b"" and time.monotonic() - ended < PATIENCE
    )  # its end of the pipe is closed: it has ended
    for descriptor in (reader, started, begun):
        os.close(descriptor)


@pytest.mark.parametrize(
    "variables, launcher",
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "zsh"}, None),  # left over in a shell
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, None),  # the body of a batch script
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2"}, "srun"),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0"}, "torchrun"),
    ],
)
def test_who_started_the_processes(
    variables: dict[str, str], launcher: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_by() == launcher


def test_what_a_scheduler_left_in_a_shell_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would take the process for one of four, and wait for the others."""
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "zsh", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = train_in(tmp_path, *QUIET, "callback.fid=null", "trainer.max_steps=1")
    assert trainer is not None and (trainer.global_step, trainer.world_size) == (1, 1)
