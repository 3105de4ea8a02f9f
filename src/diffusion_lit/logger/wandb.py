"""Weights & Biases' record of a run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger as _WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from diffusion_lit.logger.best_figures import BestFigures

__all__ = ["WandbLogger"]

log = logging.getLogger(__name__)


class WandbLogger(_WandbLogger):
    """Lightning's, with the best figures and their steps in the summary, and checkpoints as one artifact.

    `val/loss_best` and `val/loss_best_step` are over the whole life of a run: one that is resumed begins with its
    parent's. (What W&B's own `define_metric(summary="min")` keeps begins anew with each process.)

    Args:
        project: W&B's project.
        name: the run's name there; None lets W&B make one up.
        save_dir: the run's folder.
        offline: whether to write to `save_dir`/wandb alone, for `wandb sync`.
        id: the run to continue; None begins one.
        log_model: whether to keep the last and the best checkpoint as an artifact once training has ended.
        options: `wandb.init`'s others, such as `entity`, `group`, `tags`, `notes`.

    Raises:
        ValueError: if `log_model` is neither true nor false.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        save_dir: str = ".",
        offline: bool = False,
        id: str | None = None,
        log_model: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(log_model, bool):
            raise ValueError(
                f"logger.wandb.log_model={log_model} must be true (the last and the best checkpoint become an artifact "
                "at the end) or false"
            )
        super().__init__(name=name, save_dir=save_dir, offline=offline, id=id, project=project, **options)
        self.keeps_model = log_model
        self.best = BestFigures({})
        self.last: dict[str, Any] = {}

    @rank_zero_only
    def begin(
        self,
        settings: Mapping[str, Any],
        record: Mapping[str, Any],
        best: BestFigures,
        patch: Path | None,
        last: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what the run is.

        Args:
            settings: its settings, each once.
            record: its command, versions, machine and code.
            best: its parent's best figures; empty of a new run.
            patch: what the code differs by from its commit, a file in the run's folder.
            last: the row of figures, with its `step`, that this W&B run has of the checkpoint that is resumed. What is
                measured there again, such as a validation that the checkpoint was saved before, is not logged twice.
        """
        without_git = self.experiment.settings.disable_git  # WANDB_DISABLE_GIT: nothing of the code leaves the machine
        shown = {key: value for key, value in record.items() if not (without_git and key == "git")}
        self.log_hyperparams({**settings, "run": shown})
        if patch is not None and not without_git:
            self.experiment.save(str(patch), base_path=str(patch.parent), policy="now")
        self.best, self.last = best, dict(last or {})
        self.summarise(list(best.values))

    def summarise(self, names: Sequence[str]) -> None:
        for name in names:
            self.experiment.summary[f"{name}_best"] = self.best.values[name]
            self.experiment.summary[f"{name}_best_step"] = self.best.steps[name]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if step == self.last.get("step"):
            metrics = {name: value for name, value in metrics.items() if name not in self.last}
        if metrics:
            super().log_metrics(metrics, step)
        self.summarise(self.best.update(metrics, step or 0))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Nothing: the artifact is made once, at the end."""

    @rank_zero_only
    def keep_model(self, files: Sequence[Path], step: int) -> None:
        """Make checkpoints of a run that has ended a version of the artifact `model-RUN`, where that is asked for."""
        if not self.keeps_model:
            return
        import wandb

        artifact = wandb.Artifact(f"model-{self.experiment.id}", "model", metadata={"step": step, **self.best.values})
        for file in files:
            artifact.add_file(str(file))
        self.experiment.log_artifact(artifact, aliases=["latest", f"step-{step}"])
        log.info("W&B keeps %s as model-%s", " and ".join(file.name for file in files), self.experiment.id)

    @rank_zero_only
    def finish(self, failed: bool) -> None:
        """End the run; nothing can be logged after that."""
        self.experiment.finish(exit_code=int(failed))
