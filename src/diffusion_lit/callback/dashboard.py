"""The page of a run's figures, in its folder."""

import logging
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.logger.csv import CSVLogger
from diffusion_lit.logger.dashboard import draw_dashboard

__all__ = ["Dashboard"]

log = logging.getLogger(__name__)


class Dashboard(Callback):
    """Draws `folder`/dashboard.png from the figures in metrics.csv, on the first rank.

    It is drawn at the end, also of a run that diverges, and after a validation where `refresh_minutes` have passed: a
    page takes a second or two.

    Args:
        folder: where it goes.
        refresh_minutes: the least time between two pages while training.

    Raises:
        ValueError: if `refresh_minutes` is negative.
    """

    def __init__(self, folder: str, refresh_minutes: float = 10.0) -> None:
        if refresh_minutes < 0:
            raise ValueError(f"callback.dashboard.refresh_minutes must not be negative, got {refresh_minutes}")
        self.path, self.refresh_seconds = Path(folder) / "dashboard.png", 60 * refresh_minutes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.drawn = time.monotonic()
        if not any(isinstance(logger, CSVLogger) for logger in trainer.loggers) and trainer.is_global_zero:
            log.info("no dashboard.png is drawn: its figures are those of the csv logger (logger=[csv,...])")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and time.monotonic() - self.drawn >= self.refresh_seconds:
            self.draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, FloatingPointError):
            self.draw(trainer)

    def draw(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and logger.rows and trainer.is_global_zero:
                draw_dashboard([logger.rows[step] for step in sorted(logger.rows)], self.path, self.path.parent.name)
        self.drawn = time.monotonic()
