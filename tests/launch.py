"""Running the project as its users do: in this process from overrides, or as a command."""

import csv
import gc
import importlib
import inspect
import io
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.fabric.strategies.launchers import subprocess_script as fabric_subprocess_script
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import subprocess_script
from omegaconf import DictConfig
from pytest import MonkeyPatch

from diffusion_lit.command_line.check import check_settings
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.command_line.shell import quote
from diffusion_lit.data import ArrayImages, DigitsData, Images
from diffusion_lit.feature import RandomVGG
from diffusion_lit.training import train
from diffusion_lit.trust import recorded
from tests.hydra_shortcuts import composed

ROOT = Path(__file__).parents[1]

TINY = (
    "model.channels=8",
    "model.num_groups=4",
    "model.channel_multipliers=[1]",
    "model.attention_resolutions=[]",
    "data.batch_size=60",
    "sampler.num_steps=3",
    "feature=pixels",
    "callback.fid.num_samples=21",
    "callback.fid.num_steps=null",
    "callback.sample_grid.rows=1",
    "callback.dashboard=null",
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=3",
    "trainer.num_sanity_val_steps=0",
)
"""A run of seconds: four steps an epoch, and some images left over, on `few` digits."""

MACHINE = ("throughput/", "memory/")
"""Columns of metrics.csv that are not the model's."""

ALL_DIGITS = DigitsData.load

PATIENCE = 300.0
"""Seconds after which a command counts as hanging, however busy the machine is."""


@cache
def few_digits() -> dict[str, Images]:
    """A fifth of the digits to train on, 288; 12 to validate and to test."""
    every = {"train": 5, "val": 15, "test": 15}
    splits = ALL_DIGITS(DigitsData())
    return {name: ArrayImages(*splits[name].fetch(range(0, len(splits[name]), n))) for name, n in every.items()}


def few(data: DigitsData) -> dict[str, Images]:
    return dict(few_digits())


def config(folder: Path, *overrides: str, tiny: bool = True) -> DictConfig:
    """conf/train.yaml with overrides, for a run in `folder`."""
    return composed([f"run_dir={quote(str(folder))}", *(TINY if tiny else ()), *overrides])


def train_in(folder: Path, *overrides: str, tiny: Sequence[str] = TINY) -> Trainer | None:
    """A tiny run in this process; None where there is nothing left to train."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = train(config(folder, *tiny, *overrides, tiny=False), [*tiny, *overrides])
    return trained if isinstance(trained, Trainer) else None


def model_figures(run: Path) -> list[dict[str, str]]:
    """metrics.csv as it is written, but for what the machine does, which is another thing each time."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith(MACHINE)} for row in csv.DictReader(file)]


def run_command(
    name: str, *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m diffusion_lit.NAME ARGS` in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", f"diffusion_lit.{name}", *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@cache
def load() -> None:
    """Import what most commands import only as they need it, and read conf/, once for all copies of this process."""
    own = ("prepare", "evaluating", "training", "sampling", "figure", "page.run_figure", "page.write", "contact_sheet")
    for name in ("sklearn.datasets", "torchmetrics.image", "torchvision", *(f"diffusion_lit.{part}" for part in own)):
        importlib.import_module(name)
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().semilogy([1, 2])
    figure.savefig(io.BytesIO())  # matplotlib finds its fonts, and its parser of labels, at the first figure
    RandomVGG()  # whose weights are drawn once
    recorded.platform()
    inspect.stack()  # which Hydra looks through, module by module
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        for name in ("train", "sample", "evaluate", "export", "plot", "prepare", "inspect", "report"):
            compose(name, return_hydra_config=True)
            with suppress(ValueError):  # of what must be given
                check_settings(compose(name), name)  # which reads the source of all classes
    gc.freeze()  # all of which stays


class Forked:
    """`python -m MODULE ARGS` in a copy of this process, which has loaded everything already.

    It has what is used here of `subprocess.Popen`, which it is for Lightning when that starts further ranks. With
    `own_group` it and what it starts are a process group of its number, as a shell makes one of each command.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path | str,
        env: dict[str, str],
        stdout: int = 1,
        stderr: int = 2,
        own_group: bool = False,
    ) -> None:
        python, option, module, *args = command
        assert (python, option) == (sys.executable, "-m"), command
        self.returncode: int | None = None
        load()
        self.pid = os.fork()
        if own_group:  # said on both sides, since either may be late
            os.setpgid(self.pid, self.pid)
        if self.pid == 0:
            gc.disable()  # looking through what it shares with this process would copy all of it
            os._exit(self.run(module, args, cwd, env, (stdout, stderr)))

    @staticmethod
    def run(module: str, args: list[str], cwd: Path | str, env: dict[str, str], outputs: tuple[int, int]) -> int:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            for descriptor, file in enumerate(outputs, start=1):
                os.dup2(file, descriptor)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = [module, *args]
            sys.modules.pop(module, None)
            GlobalHydra.instance().clear()  # a rank is a copy of a process that Hydra is at work in
            for launcher in (subprocess_script, fabric_subprocess_script):
                launcher.subprocess = SimpleNamespace(Popen=Forked)  # type: ignore[attr-defined]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return 0
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except KeyboardInterrupt:
            traceback.print_exc()
            return 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def until(self, what: Callable[[], object]) -> None:
        """Wait for something that this process does before it ends."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert self.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


@contextmanager
def holding(owner: type, name: str, reached: Callable[[], object], let_go: Path) -> Iterator[None]:
    """Copies of this process made here come no further than `owner.name` once `reached`, until there is `let_go`.

    What a test does to a command in the middle of its work then finds it there, however busy the machine is.
    """
    work = getattr(owner, name)

    def held(*args: Any, **options: Any) -> Any:
        while reached() and not let_go.exists():
            time.sleep(0.01)
        return work(*args, **options)

    with MonkeyPatch.context() as patch:
        patch.setattr(owner, name, held)
        yield


def run_forked(name: str, *args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As `run_command`, in a copy of this process; and the ranks that it starts are copies of it."""
    command = [sys.executable, "-m", f"diffusion_lit.{name}", *args]
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = Forked(command, cwd, {**os.environ, **(env or {})}, stdout.fileno(), stderr.fileno())
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            stderr.seek(0)
            error.add_note(stderr.read())
            raise
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess([name, *args], code, stdout.read(), stderr.read())


def run_launched(name: str, *args: str, folders: Sequence[Path]) -> list[tuple[int, str]]:
    """As `run_forked`, a process in each of `folders`, started as torchrun does: their codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command, count = [sys.executable, "-m", f"diffusion_lit.{name}", *args], str(len(folders))
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in folders]
        started = []
        for rank, (folder, file) in enumerate(zip(folders, files, strict=True)):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            variables = {**os.environ, **common, **own, "GROUP_RANK": "0"}
            started.append(Forked(command, folder, variables, file.fileno(), file.fileno()))
        codes = [process.wait(PATIENCE) for process in started]
        for file in files:
            file.seek(0)
        return list(zip(codes, [file.read() for file in files], strict=True))


def read_by_bash(command: str) -> list[str]:
    """The arguments that bash gives to Python in this command."""
    script = f'set -- {command}; printf "%s\\0" "$@"'
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    assert Path(words[0]).name.startswith("python"), words
    return words[1:]
