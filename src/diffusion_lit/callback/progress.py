"""A progress bar that counts images."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

__all__ = ["ProgressBar"]


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, with images a second over all ranks, the step, and the time left of the whole run.

    Args:
        refresh_rate: steps between updates.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.num_images = 0
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.first_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds += time.perf_counter() - self.started
        self.num_images += len(batch[0]) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        if self.seconds > 0:
            metrics["img/s"] = f"{self.num_images / self.seconds:.0f}"
            steps = trainer.global_step - self.first_step
            if trainer.max_steps > 0 and steps > 0:
                left = self.seconds / steps * (trainer.max_steps - trainer.global_step)
                metrics["step"] = f"{trainer.global_step}/{trainer.max_steps}"
                metrics["left"] = f"{int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d}"
        return metrics
