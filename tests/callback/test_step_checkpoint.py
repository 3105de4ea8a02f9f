"""Checkpoints by their steps: what a run has that is resumed from one, and what stands on the disk with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.logger.csv import read_table
from tests.launch import model_figures, train_in

OPTIONS = ("callback.fid=null", "callback.sample_grid=null", "callback.raw_loss=null", "trainer.max_steps=6")
LIGHTNING_S = "lightning.pytorch.callbacks.ModelCheckpoint"


class Table(Callback):
    """Reads the run's table as it stands on the disk before each step."""

    def __init__(self, folder: str) -> None:
        self.path, self.rows = Path(folder) / "metrics.csv", dict[int, int]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.rows[trainer.global_step] = max((row["step"] for row in read_table(self.path)), default=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    """Points fall on steps 2, 4 and 6, checkpoints on 4, and on 3 and 6 the last one and validation."""
    folder = tmp_path_factory.mktemp("run")
    probe = ("+callback.table._target_=tests.callback.test_step_checkpoint.Table", f"+callback.table.folder={folder}")
    options = ("trainer.log_every_n_steps=2", "callback.step_checkpoint.every_n_train_steps=4")
    trainer = train_in(folder, *OPTIONS, *options, *probe)
    assert trainer is not None
    return folder, trainer


@pytest.mark.parametrize("older", [False, True])
def test_a_run_resumed_from_a_step_has_the_whole_run_s_figures(
    older: bool, run: tuple[Path, Trainer], tmp_path: Path
) -> None:
    """Also one of a version that had Lightning's class in this place."""
    checkpoint = load_checkpoint(run[0] / "checkpoints" / "step_0000004.ckpt")
    assert checkpoint["config"]["callback"]["step_checkpoint"]["_target_"] != LIGHTNING_S
    if older:
        checkpoint["config"]["callback"]["step_checkpoint"]["_target_"] = LIGHTNING_S
    assert "StepCheckpoint" not in " ".join(checkpoint["callbacks"]), "older ones have its state by this name"
    torch.save(checkpoint, tmp_path / "step.ckpt")
    (tmp_path / "metrics.csv").write_text((run[0] / "metrics.csv").read_text())
    options = ("callback.step_checkpoint.every_n_train_steps=5", "+callback.table=null")
    trainer = train_in(tmp_path / "resumed", f"resume={tmp_path / 'step.ckpt'}", *options, tiny=())
    assert trainer is not None and trainer.global_step == 6
    assert model_figures(tmp_path / "resumed") == model_figures(run[0])
    names = {path.name for path in (tmp_path / "resumed" / "checkpoints").iterdir()}
    assert names >= {"last.ckpt", "step_0000005.ckpt"}
    assert load_checkpoint(tmp_path / "resumed")["config"]["callback"]["step_checkpoint"]["_target_"] != LIGHTNING_S


def test_the_figures_of_a_step_are_on_the_disk_with_its_checkpoint(run: tuple[Path, Trainer]) -> None:
    callbacks: list[Any] = run[1].callbacks  # type: ignore[attr-defined]
    [table] = [callback for callback in callbacks if type(callback).__name__ == Table.__name__]
    assert table.rows == {0: 0, 1: 0, 2: 0, 3: 3, 4: 4, 5: 4}


def test_the_last_checkpoint_knows_which_was_the_best(run: tuple[Path, Trainer]) -> None:
    """Or else a run that trains on would take a worse one for better."""
    losses = {row["step"]: row["val/loss"] for row in read_table(run[0] / "metrics.csv") if "val/loss" in row}
    assert min(losses, key=lambda step: losses[step]) == 6, "the last validation is the best"
    states = load_checkpoint(run[0] / "checkpoints" / "last.ckpt")["callbacks"]
    [state] = [state for name, state in states.items() if name.startswith("ModelCheckpoint") and "val/loss" in name]
    assert float(state["best_model_score"]) == pytest.approx(losses[6], rel=1e-6)
