"""Lightning's trainer, where a run needs more of it than it gives."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.budget import Budget
from diffusion_lit.distributed.hybrid_shard import HybridShardStrategy
from diffusion_lit.distributed.ranks import launched_by
from diffusion_lit.logger.connector import LoggerConnector
from diffusion_lit.run.checkpoint_files import CheckpointFiles
from diffusion_lit.step_timer import StepTimer

__all__ = ["build_trainer", "check_processes"]


def build_trainer(cfg: DictConfig, callbacks: Sequence[Callback], loggers: Sequence[Logger]) -> Trainer:
    """The trainer of `cfg` (conf/trainer), its budget and its own ways with checkpoints, signals and intervals.

    Raises:
        ValueError: if a limit or the strategy is wrong.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=True)  # which refers to what is around it
    budget = Budget(settings["max_steps"], settings["max_epochs"], *map(settings.pop, ("max_images", "max_minutes")))
    strategy = settings["strategy"]
    if isinstance(strategy, dict) and strategy.get("static_graph") and settings["accumulate_grad_batches"] > 1:
        raise ValueError(
            f"strategy=ddp_static is for trainer.accumulate_grad_batches=1, got {settings['accumulate_grad_batches']}: "
            "torch's static graph fails where gradients are accumulated. Use strategy=ddp"
        )
    settings |= {"max_steps": settings["max_steps"] or -1, "max_epochs": settings["max_epochs"] or -1}
    if "enable_progress_bar" not in settings:  # without ours, Lightning would show its own
        settings["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    plugins: list[Any] = [CheckpointFiles()]
    if launched_by() is None:
        plugins.append(LightningEnvironment())  # and not what a scheduler's variables in a shell make it guess
    make = instantiate(OmegaConf.create({**settings, "_partial_": True}))  # callbacks must not become configurations
    trainer: Trainer = make(callbacks=[budget, *callbacks], logger=list(loggers), plugins=plugins)
    if isinstance(trainer.strategy, HybridShardStrategy):
        trainer.strategy.check(trainer.num_devices * trainer.num_nodes)
    loop = FitLoop(trainer, trainer.min_epochs, trainer.max_epochs)
    loop.epoch_loop = EpochLoop(trainer, trainer.min_steps, trainer.max_steps)
    trainer.fit_loop = loop
    trainer._logger_connector = LoggerConnector(trainer)
    # Its handlers exit with 0, start collectives inside of a signal handler, and requeue SLURM jobs by themselves.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def check_processes(cfg: DictConfig) -> None:
    """Check that a launcher has started as many processes as the settings ask for; without one, that one node is asked.

    Raises:
        ValueError: naming the numbers, and the launchers' commands.
    """
    if launched_by() is None:
        if cfg.num_nodes > 1:
            raise ValueError(
                f"trainer.num_nodes={cfg.num_nodes} takes a launcher, which connects the nodes before anything is "
                f"decided. On each node:\n  torchrun --nnodes {cfg.num_nodes} --nproc-per-node {cfg.devices} "
                "--rdzv-backend c10d --rdzv-endpoint HOST:PORT -m diffusion_lit.train ...\nwhere HOST is one of them, "
                "with a free PORT; or srun in a SLURM job (docs/scaling.md)"
            )
        return
    started, asked = torch.distributed.get_world_size(), cfg.devices * cfg.num_nodes
    if started != asked:
        raise ValueError(
            f"{launched_by()} has started {started} processes, and trainer.devices={cfg.devices} on trainer.num_nodes="
            f"{cfg.num_nodes} are {asked}: let them agree"
        )


class FitLoop(_FitLoop):
    """Ends only after the last step's validation and what else `on_train_end` does, also where a run was cut before."""

    epoch_loop: "EpochLoop"

    @property
    def skip(self) -> bool:
        return bool(self.trainer.limit_train_batches == 0)  # and not where only the end is left

    @property
    def done(self) -> bool:
        return super().done and not (self.restarting and self.epoch_loop.validation_is_due)


class EpochLoop(_TrainingEpochLoop):
    """Validates every `trainer.val_check_interval` optimizer steps, once each, also where a run was cut before it did.

    Lightning counts batches, which are several to a step where gradients are accumulated, and takes a validation that a
    checkpoint was written before for done.
    """

    def __init__(self, trainer: Trainer, min_steps: int | None, max_steps: int) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.val_loop = ValidationLoop(
            trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False
        )
        self.timer = StepTimer()
        self.validated_step: int | None = 0
        """The step of the newest validation; None where an older checkpoint does not say."""

    @property
    def done(self) -> bool:
        return super().done and not (self.restarting and self.validation_is_due)

    @property
    def validation_is_due(self) -> bool:
        step, by_epochs = self.global_step, self.trainer.check_val_every_n_epoch is not None  # which is Lightning's
        if by_epochs or not self.trainer.enable_validation:
            return False
        regular = step % int(self.trainer.val_check_interval) == 0
        return self.validated_step not in (None, step) and (regular or self.trainer.should_stop)

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        if self.trainer.check_val_every_n_epoch is not None:
            return super()._should_check_val_fx(data_fetcher)
        return not self._should_accumulate() and self.validation_is_due

    def reset(self) -> None:
        super().reset()
        if self.validated_step is None:
            self.validated_step = self.global_step
        # by which Lightning knows when to log; what follows a batch, and counts it, is still to come where it was cut
        self._batches_that_stepped = self.global_step - (self.restarting and self.validation_is_due)

    def advance(self, data_fetcher: Any) -> None:
        self.val_loop.restarting = False  # from its first image
        self.trained = not (self.restarting and self._should_check_val_fx(data_fetcher))
        if self.restarting and self.trained and self._num_ready_batches_reached():
            raise StopIteration  # the epoch is over, and loading processes are at the next one's batches
        if self.trained:
            self.timer.begin_step()
            super().advance(data_fetcher)
            self.timer.end_step()

    def _on_before_fetch(self) -> None:
        super()._on_before_fetch()
        self.timer.begin_fetch()

    def _on_after_fetch(self) -> None:
        self.timer.end_fetch()
        super()._on_after_fetch()

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Where a step has ended, and its figures are logged, first save; `on_step_end` is a hook of ours."""
        if self.trained and not self._should_accumulate():
            for callback in sorted(self.trainer.callbacks, key=lambda callback: not isinstance(callback, Checkpoint)):
                if hasattr(callback, "on_step_end"):
                    callback.on_step_end(self.trainer, self.trainer.lightning_module)
        super().on_advance_end(data_fetcher)

    def _broadcast_sigterm_tensor(self) -> None:
        """Ranks agree to stop in `LastCheckpoint`, without waiting for each other at each step."""

    def on_save_checkpoint(self) -> dict[str, Any]:
        return {**super().on_save_checkpoint(), "validated_step": self.validated_step}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self.validated_step = state_dict.get("validated_step")


class ValidationLoop(_EvaluationLoop):
    """Says that it is done before a checkpoint is written of it."""

    def _on_evaluation_end(self, *args: Any, **kwargs: Any) -> None:
        loop = self.trainer.fit_loop.epoch_loop
        if isinstance(loop, EpochLoop) and not self.trainer.sanity_checking:
            loop.validated_step = loop.global_step
            for logger in self.trainer.loggers:
                logger.save()  # its figures, before a checkpoint says that there are any
        super()._on_evaluation_end(*args, **kwargs)
