"""Whole runs on prepared sets and folders: over several processes, stopped and gone on, and with what goes wrong."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.checkpoint import load_checkpoint
from tests.data.prepared_set import numbers, prepare, settings, write_folder
from tests.launch import TINY, run_command, run_forked, train_in
from tests.repeats import slow_but

NUM_IMAGES = 61
QUIET = (
    "callback.fid=null",
    "callback.sample_grid=null",
    "callback.best_checkpoint=null",
    "trainer.val_check_interval=1000",
    "trainer.log_every_n_steps=1",
)


class Seen(Callback):
    """Writes down, step by step, which images a rank trained on."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.steps: list[tuple[int, list[int]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.steps.append((trainer.current_epoch, numbers(batch.images)))
        (self.folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(self.steps))


def children(pid: int) -> list[int]:
    return [int(pid) for task in Path(f"/proc/{pid}/task").iterdir() for pid in (task / "children").read_text().split()]


class KillWorker(Callback):
    """Ends all data loading processes from outside, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            for child in children(os.getpid()):
                for process in children(child) or [child]:  # they may be a fork server's
                    if "resource_tracker" not in Path(f"/proc/{process}/cmdline").read_text():
                        os.kill(process, signal.SIGKILL)


def options(kind: str, root: Path) -> list[str]:
    name = "stream" if kind == "remote" else kind
    return [f"data={name}", *(f"data.{key}={value}" for key, value in settings(kind, root).items())]


def seen(folder: Path, world_size: int) -> list[tuple[int, list[int]]]:
    """The epoch and the images of each step, of all ranks together."""
    ranks = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(world_size)]
    assert len({len(steps) for steps in ranks}) == 1, "all ranks take equally many steps"
    return [(steps[0][0], [i for _, images in steps for i in images]) for steps in zip(*ranks, strict=True)]


@pytest.mark.slow  # tests/data/test_any_set.py and test_loading_processes.py have its parts
@pytest.mark.parametrize("kind", ["image_folder", "memmap", "remote", "stream"])
def test_processes_share_an_epoch_and_others_continue_it(tmp_path: Path, kind: str) -> None:
    """Two processes with two loading processes each, stopped in the second epoch; one process does the rest of it."""
    prepare(write_folder(tmp_path / "folder", NUM_IMAGES), tmp_path / "set")
    command = [*TINY, *QUIET, *options(kind, tmp_path), "+callback.seen._target_=tests.data.test_runs.Seen"]
    run = run_command if kind == "remote" else run_forked  # a copy would share its fork server with this process
    steps: list[tuple[int, list[int]]] = []
    stages = ((2, 5, 10), (1, 7, 14))  # processes, images a process and step, steps in all
    for devices, batch_size, max_steps in stages:
        folder = tmp_path / str(devices)
        folder.mkdir()
        done = run(
            "train",
            *command,
            f"+callback.seen.folder={folder}",
            f"trainer.devices={devices}",
            f"data.batch_size={batch_size}",
            "data.num_workers=2",
            f"trainer.max_steps={max_steps}",
            f"hydra.run.dir={folder / 'run'}",
            *([f"resume={tmp_path / '2' / 'run'}"] if devices == 1 else []),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        steps += seen(folder, devices)
    epochs: dict[int, list[int]] = {}
    for epoch, images in steps:
        epochs.setdefault(epoch, []).extend(images)
    # 61 images are 6 steps of 10; 4 steps into the second epoch, 21 are left: 3 steps of 7; the last is the third's.
    assert {epoch: len(images) for epoch, images in epochs.items()} == {0: 60, 1: 40 + 21, 2: 7}
    assert all(len(set(images)) == len(images) for images in epochs.values())
    assert sorted(epochs[1]) == list(range(NUM_IMAGES))


@pytest.mark.parametrize("kind", slow_but(("image_folder",), ("image_folder", "memmap", "remote")))
def test_a_killed_worker_costs_no_step(tmp_path: Path, kind: str) -> None:
    """The message names the cause and the remedy; what was trained is saved, and goes on as if nothing had happened."""
    prepare(write_folder(tmp_path / "folder", NUM_IMAGES), tmp_path / "set")
    command = [*QUIET, *options(kind, tmp_path), "data.batch_size=5", "data.num_workers=1", "trainer.max_steps=20"]
    train_in(tmp_path / "whole", *command)
    kill = ("+callback.kill._target_=tests.data.test_runs.KillWorker", "+callback.kill.step=7")
    run = run_command if kind == "remote" else run_forked
    broken = run("train", *TINY, *command, *kill, f"hydra.run.dir={tmp_path / 'broken'}", cwd=tmp_path)
    assert broken.returncode == 1 and "Traceback" not in broken.stderr
    assert "a data loading process was ended from outside" in broken.stderr and "resume=RUN" in broken.stderr
    saved = load_checkpoint(tmp_path / "broken")["global_step"]
    assert 7 <= saved < 20
    train_in(tmp_path / "resumed", *command, "+callback.kill=null", f"resume={tmp_path / 'broken'}")
    expected, found = (load_checkpoint(tmp_path / run)["state_dict"] for run in ("whole", "resumed"))
    assert all(torch.equal(w, found[name]) for name, w in expected.items())


def test_a_file_that_breaks_in_the_middle_is_named_and_costs_no_step(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", NUM_IMAGES)
    path = sorted((tmp_path / "folder" / "train").rglob("*.png"))[30]
    path.write_bytes(path.read_bytes()[:60])  # its header is whole
    command = [*TINY, *QUIET, *options("image_folder", tmp_path), "data.batch_size=2", "data.num_workers=0"]
    done = run_forked("train", *command, "trainer.max_steps=40", f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 1 and str(path) in done.stderr and "repair or remove it" in done.stderr
    steps = load_checkpoint(tmp_path / "run")["global_step"]
    assert f"step {steps} was saved" in (tmp_path / "run" / "train.log").read_text()
