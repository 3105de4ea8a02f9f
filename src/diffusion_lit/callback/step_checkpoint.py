"""Checkpoints by their steps."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["StepCheckpoint"]


class StepCheckpoint(ModelCheckpoint):
    """Lightning's, saved where a step has ended: with the step's figures, which the table then has on the disk too.

    Lightning's own saves before they are logged, so that a run resumed from there counts them again, or lacks them.
    """

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)  # as it once was

    def on_train_batch_end(self, *_: Any) -> None:
        """Too early."""

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_batch_end(trainer, pl_module, None, None, 0)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        for logger in trainer.loggers:
            logger.save()
        super()._save_checkpoint(trainer, filepath)
