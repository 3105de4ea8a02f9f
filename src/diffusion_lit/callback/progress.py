"""One progress bar for the whole run."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from tqdm import tqdm

__all__ = ["ProgressBar"]


class ProgressBar(LightningProgressBar):
    """Optimizer steps done, time left, images a second over all ranks, and the newest losses.

    `img/s` counts the time of training steps and of waiting for their images; `data` is the share of waiting in it.
    Updates are at least `refresh_seconds` apart. Lightning's own bar starts anew at each epoch, which for a small
    dataset is every few seconds.
    """

    def __init__(self, refresh_seconds: float = 1.0) -> None:
        super().__init__()
        self.refresh_seconds, self.enabled = refresh_seconds, True
        self.bar: tqdm[Any] | None = None

    def disable(self) -> None:
        """Called by Lightning on every rank but the first."""
        self.enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        self.bar = tqdm(
            desc="training",
            unit="step",
            initial=trainer.global_step,
            total=int(total) if total != float("inf") else None,
            mininterval=self.refresh_seconds,
            disable=not self.enabled,
            dynamic_ncols=True,
        )
        self.num_images = 0
        self.seconds = self.waiting = 0.0
        self.ended: float | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = time.perf_counter()
        if self.ended is not None:
            self.waiting += self.started - self.ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.bar is not None
        self.ended = time.perf_counter()
        self.seconds += self.ended - self.started
        self.num_images += len(batch) * trainer.world_size
        if self.enabled and self.bar.update(trainer.global_step - self.bar.n):
            self.bar.set_postfix(self.figures(trainer, pl_module), refresh=False)

    def on_validation_start(self, *_: Any) -> None:
        self.ended = None  # what follows is not waiting for images

    def on_save_checkpoint(self, *_: Any) -> None:
        self.ended = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None and self.enabled and not trainer.sanity_checking:
            self.bar.set_postfix(self.figures(trainer, pl_module))

    def on_train_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()

    def figures(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
        """Images a second, the share of time spent waiting for them, and what the module logs for the bar."""
        metrics = {k: f"{v:.4g}" for k, v in self.get_metrics(trainer, pl_module).items() if isinstance(v, float)}
        total = max(self.seconds + self.waiting, 1e-9)
        return {"img/s": f"{self.num_images / total:.0f}", "data": f"{self.waiting / total:.1%}", **metrics}
