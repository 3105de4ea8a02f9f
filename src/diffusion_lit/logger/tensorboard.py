"""TensorBoard's record of a run."""

import json
import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as _TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from diffusion_lit.derived import leaves
from diffusion_lit.extra import require
from diffusion_lit.logger.best_figures import BestFigures

__all__ = ["TensorBoardLogger"]

METRIC = "hp_metric"


class TensorBoardLogger(_TensorBoardLogger):
    """Lightning's, with the best value of the run's objective as `hp_metric`, by which the HPARAMS page compares runs.

    Args:
        save_dir: the run's folder.
        name: the folder in it.
        version: a folder in that; empty for none.
        options: `TensorBoardLogger`'s and `SummaryWriter`'s others.
    """

    def __init__(self, save_dir: str, name: str = "tensorboard", version: str = "", **options: Any) -> None:
        require("tensorboard", "tensorboard", "logger=tensorboard")  # Lightning would take another package for it
        super().__init__(save_dir, name, version, default_hp_metric=False, **options)
        self.best = BestFigures({})
        self.objective: str | None = None

    @rank_zero_only
    def begin(
        self, settings: Mapping[str, Any], record: Mapping[str, Any], best: BestFigures, objective: str | None
    ) -> None:
        """Write what the run is.

        Args:
            settings: its settings, each once.
            record: its command, versions, machine and code.
            best: its parent's best figures; empty of a new run.
            objective: the figure that runs are compared by.
        """
        from torch.utils.tensorboard.summary import hparams

        self.best, self.objective = best, objective
        self.log_hyperparams(dict(settings))
        for summary in hparams(self._sanitize_params(leaves(settings)), {METRIC: math.nan}):  # type: ignore[no-untyped-call]
            self.experiment._get_file_writer().add_summary(summary)
        self.experiment.add_text("run", f"```json\n{json.dumps(record, indent=2)}\n```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        improved = self.best.update(metrics, step or 0)
        if self.objective in improved:
            metrics = {**metrics, METRIC: metrics[self.objective]}
        super().log_metrics(metrics, step)
