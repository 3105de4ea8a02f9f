"""Running the project as its users do: in this process from overrides, or as a command."""

import os
import subprocess
import sys
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
    "metric=pixels",
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


def train_in(folder: Path, *overrides: str) -> Trainer:
    """A tiny run in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    return train(config(folder, *overrides))


def run_command(
    name: str, *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m diffusion_lit.NAME ARGS` in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", f"diffusion_lit.{name}", *args],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
