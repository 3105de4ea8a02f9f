"""Stop a run that has diverged, before it overwrites what was good."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from diffusion_lit.callback.last_checkpoint import LastCheckpoint

__all__ = ["NaNGuard"]


class NaNGuard(Callback):
    """Raises once a training loss was infinite or not a number, and never lets a checkpoint be written after one.

    The loss is looked at on the device at each step, and the verdict read every `every_n_steps` steps and before each
    checkpoint, so that an accelerator is not made to wait at each step. All ranks decide together.

    Args:
        every_n_steps: batches between readings.

    Raises:
        ValueError: if `every_n_steps` is under 1.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        if every_n_steps < 1:
            raise ValueError(f"callback.nan_guard.every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.first_bad_step: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        if self.first_bad_step is None:
            self.first_bad_step = torch.full_like(loss, torch.inf)
        step = torch.where(loss.isfinite(), torch.inf, float(trainer.global_step))
        self.first_bad_step = torch.minimum(self.first_bad_step, step)
        if (batch_idx + 1) % self.every_n_steps == 0:
            self.check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Read the verdict of all ranks.

        Raises:
            FloatingPointError: if a loss since the start was not finite on any of them.
        """
        if self.first_bad_step is None:
            return
        finite = bool(self.first_bad_step.isinf())
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        kept = "".join(f"\n  {path}" for path in self.good_checkpoints(trainer)) or " none was written yet"
        where = f"at step {int(self.first_bad_step)}" if not finite else "on another process"
        rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
        raise FloatingPointError(
            f"the training loss was not finite {where} (learning rate {rates}, precision {trainer.precision}). "
            f"Training is stopped, and nothing was saved since. Good checkpoints:{kept}\nLower optimizer.lr, lengthen "
            "the warm-up, set trainer.gradient_clip_val=1, or use trainer.precision=32, and continue with resume=PATH"
        )

    def good_checkpoints(self, trainer: Trainer) -> list[str]:
        """The files that this run has written."""
        callbacks = trainer.checkpoint_callbacks
        best = [c.best_model_path for c in callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
        return best + [str(c.path) for c in callbacks if isinstance(c, LastCheckpoint) and c.path.is_file()]
