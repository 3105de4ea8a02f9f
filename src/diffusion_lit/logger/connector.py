"""One clock for all figures: the model after n optimizer steps has its figures at n, whoever logs them, and where."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from diffusion_lit.budget import budget_of

__all__ = ["LoggerConnector", "log_figures"]


class LoggerConnector(_LoggerConnector):
    """Gives loggers what is logged under the number of optimizer steps, and beside it `images_seen` and `epoch`.

    Lightning's own counts a training step from 0 and what follows it from 1. It also has loggers write to the disk
    with every row, which ours do by their own clocks and with each checkpoint.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.step_with_axes = -1

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if not self.trainer.loggers or not metrics:
            return
        self._logged_metrics.update(metrics)
        row = convert_tensors_to_scalars(metrics)
        if step is None:
            step = int(row.pop("step", self.trainer.global_step))
        if step == self.trainer.global_step != self.step_with_axes and self.trainer.state.fn == "fit":
            self.step_with_axes = step  # once, where several rows are of one step
            row |= {"images_seen": float(budget_of(self.trainer).images), "epoch": epochs_seen(self.trainer)}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step)


def epochs_seen(trainer: Trainer) -> float:
    """Epochs trained on, the current one in part, also between a step and the end of its epoch."""
    begun = trainer.fit_loop.epoch_progress.current.ready
    done, whole = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.num_training_batches
    return max(begun - 1, 0) + (min(done / whole, 1.0) if 0 < whole < float("inf") else 0.0)


def log_figures(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Log figures of the model as it is now, and let checkpoints follow them. All ranks call this."""
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
    row: dict[str, Any] = dict(figures)
    trainer._logger_connector.log_metrics(row, trainer.global_step)
