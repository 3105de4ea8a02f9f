"""What only a GPU can show. Left out where there is none."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.checkpoint import load_checkpoint
from tests.launch import TINY, config, run_command
from tests.test_training import column, same

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

ON_GPU = (*(option for option in TINY if "accelerator" not in option), "trainer.accelerator=gpu")
QUIET = ("callback.fid=null", "callback.sample_grid=null")


def train_on_gpu(folder: Path, *overrides: str) -> Trainer:
    from diffusion_lit.training import train

    folder.mkdir(parents=True, exist_ok=True)
    options = [*ON_GPU, *overrides]
    trainer = train(config(folder, *options, tiny=False), options)
    assert trainer is not None
    return trainer


class NoSynchronisation(Callback):
    """Raises where a step makes the host wait for the device, from the fifth step on, as all memory is there then."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if trainer.global_step >= 4 else "default")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_does_not_wait_for_the_device(precision: str, tmp_path: Path) -> None:
    """With everything that looks at a step on: guard, EMA, clipping, logging."""
    probe = "+callback.probe._target_=tests.test_gpu.NoSynchronisation"
    options = ("trainer.max_steps=12", "trainer.val_check_interval=100", "callback.progress.refresh_seconds=1000")
    train_on_gpu(tmp_path, *QUIET, *options, f"trainer.precision={precision}", probe)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
def test_a_resumed_run_is_the_same_run(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, with deterministic kernels."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    options = (*QUIET, f"trainer.precision={precision}", "+trainer.deterministic=warn", "trainer.log_every_n_steps=1")
    options = (*options, f"optimizer.fused={str(precision != '16-mixed').lower()}")
    train_on_gpu(tmp_path / "whole", *options, "trainer.max_steps=10")
    train_on_gpu(tmp_path / "a", *options, "trainer.max_steps=5")
    train_on_gpu(tmp_path / "b", *options, "trainer.max_steps=10", f"resume={tmp_path / 'a'}")
    assert same(*(tmp_path / run / "checkpoints" / "last.ckpt" for run in ("whole", "b")))
    assert column(tmp_path / "whole", "train/loss") == column(tmp_path / "b", "train/loss")


def test_a_gradient_that_is_not_finite_stops_a_run(tmp_path: Path) -> None:
    poison = "+callback.poison={_target_: tests.callback.test_nan_guard.PoisonGradient, steps: [4]}"
    with pytest.raises(FloatingPointError, match="the gradient was not finite at step 5"):
        train_on_gpu(tmp_path, *QUIET, poison, "trainer.max_steps=20")
    assert load_checkpoint(tmp_path)["global_step"] == 3


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_of_each_strategy_trains_and_resumes(strategy: str, tmp_path: Path) -> None:
    args = [*ON_GPU, *QUIET, f"strategy={strategy}", "trainer.max_steps=4"]
    for name, more in (("a", []), ("b", [f"resume={tmp_path / 'a'}", "trainer.max_steps=6"])):
        done = run_command("train", *args, *more, f"hydra.run.dir={tmp_path / name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "b")["global_step"] == 6


def test_a_run_with_pictures_and_figures(tmp_path: Path) -> None:
    trainer = train_on_gpu(tmp_path, "trainer.max_steps=6", "trainer.precision=bf16-mixed")
    assert "fid/pixels_21" in trainer.callback_metrics and len(list((tmp_path / "samples").iterdir())) == 2


class Stop(Callback):
    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_validation_saves(tmp_path: Path) -> None:
    stop = "+callback.stop._target_=tests.test_gpu.Stop"
    done = run_command("train", *ON_GPU, *QUIET, stop, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 143 and "everything is saved" in done.stderr, done.stderr
    assert load_checkpoint(tmp_path / "run")["global_step"] == 3
