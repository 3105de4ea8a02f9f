"""Running the project as its users do: in this process from overrides, or as a command."""

import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from hydra import compose, initialize_config_dir
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from diffusion_lit.command import CONFIG_FOLDER
from diffusion_lit.training import train

ROOT = Path(__file__).parents[1]

TINY = (
    "model.channels=8",
    "model.num_groups=4",
    "model.channel_multipliers=[1,2]",
    "data.batch_size=300",
    "sampler.num_steps=3",
    "feature=pixels",
    "callback.fid.num_samples=21",
    "callback.sample_grid.rows=1",
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=3",
)
"""A run of seconds: four steps an epoch on the digits."""


def config(folder: Path, *overrides: str, tiny: bool = True) -> DictConfig:
    """conf/train.yaml with overrides, for a run in `folder`."""
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("train", [f"run_dir={folder}", *(TINY if tiny else ()), *overrides])


def train_in(folder: Path, *overrides: str) -> Trainer | None:
    """A tiny run in this process; None where there is nothing left to train."""
    folder.mkdir(parents=True, exist_ok=True)
    return train(config(folder, *overrides), [*TINY, *overrides])


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
        timeout=240,
        check=False,
    )


def run_forked(name: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `run_command`, in a copy of this process, which has loaded everything already."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for file, descriptor in ((stdout, 1), (stderr, 2)):
                    os.dup2(file.fileno(), descriptor)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.chdir(cwd)
                sys.argv = [name, *args]
                sys.modules.pop(f"diffusion_lit.{name}", None)
                runpy.run_module(f"diffusion_lit.{name}", run_name="__main__")
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(
            [name, *args], os.waitstatus_to_exitcode(status), stdout.read(), stderr.read()
        )
