"""One training run, from its configuration to its last checkpoint."""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from diffusion_lit.agreement import (
    check_numbers,
    choose_accelerator,
    find_autoencoder,
    fit_model_to_data,
    refuse_ignored_augmentation,
    refuse_ignored_weighting,
)
from diffusion_lit.budget import budget_of, doubled
from diffusion_lit.callback import LastCheckpoint
from diffusion_lit.checkpoint import find_checkpoint
from diffusion_lit.command_line.sample_settings import settings_of_record
from diffusion_lit.command_line.shell import key_of
from diffusion_lit.data import ImageDataModule
from diffusion_lit.feature.shared import instantiate_sharing
from diffusion_lit.logger.csv import newest_value
from diffusion_lit.module import DiffusionModule
from diffusion_lit.optimizer import check_optimizer
from diffusion_lit.run.checkpoint_files import SameCheckpoint
from diffusion_lit.run.fine_tuning import load_weights
from diffusion_lit.run.folder import claim_for_all, say_finished, set_aside
from diffusion_lit.run.record import (
    carried,
    continue_loggers,
    end_record,
    figures_before,
    finish_wandb,
    run_name,
    write_record,
)
from diffusion_lit.run.restore import INHERITED, restore_settings
from diffusion_lit.run.resume import Origin, check_origin, find_earlier_run, find_origin, is_finished, open_origin, read
from diffusion_lit.run.settings import Change, remarks
from diffusion_lit.run.start_table import StartTable
from diffusion_lit.terminal.chatter import quiet_loggers, quiet_the_platform
from diffusion_lit.terminal.end_report import end_report
from diffusion_lit.terminal.interruption import Interrupted, Interruption
from diffusion_lit.terminal.screen import choose_progress
from diffusion_lit.trainer import build_trainer, check_processes

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(cfg: DictConfig, overrides: Sequence[str] | None = None, cell: str | None = None) -> Trainer | Origin:
    """Train as `cfg` (conf/train.yaml, composed) says; the folder `cfg.run_dir` gets all that is written.

    Everything is built, and so checked, before any work starts.

    Args:
        cfg: the settings.
        overrides: the command line that `cfg` comes from: with `resume=RUN` the run's own settings hold, and these on
            top; None takes `cfg` as it stands.
        cell: in a sweep, the name of the job's folder.

    Returns:
        The trainer; where the run to resume has been trained to its end already, the checkpoint of that.

    Raises:
        Interrupted: if the process was asked to stop.
        ValueError: if a setting is wrong.
        FileNotFoundError: if data, weights or the checkpoint to resume from are missing.
    """
    with Interruption() as interruption:
        quiet_the_platform()
        origin = None
        if cfg.init is not None and cfg.resume not in (None, "auto"):
            raise ValueError(f"init={cfg.init} would be ignored with resume={cfg.resume}: give one of them")
        if cfg.init is None and any(override.startswith("init_weights=") for override in overrides or ()):
            raise ValueError(f"init_weights={cfg.init_weights} would be ignored without init=RUN: leave it out")
        if cfg.resume not in (None, "auto"):
            origin = open_origin(lambda: find_origin(cfg.resume))
            if origin is not None and overrides is not None:
                cfg, overrides = restore_settings(origin.recorded, str(origin.file), cfg, overrides)
        elif cfg.init is not None and overrides is not None:
            source = find_checkpoint(cfg.init)
            given = {key_of(override) for override in overrides}
            cfg, overrides = restore_settings(read(source), str(source), cfg, overrides, INHERITED)
            for key in ("resolution", "image_channels", "num_classes"):
                if f"model.{key}" not in given:
                    cfg.model[key] = "auto"
        return run(cfg, overrides or (), origin, cell, interruption)


def run(
    cfg: DictConfig, overrides: Sequence[str], origin: Origin | None, cell: str | None, interruption: Interruption
) -> Trainer | Origin:
    choose_progress(None if cfg.callback.get("progress") is None else cfg.progress)
    choose_accelerator(cfg)
    check_numbers(cfg.trainer)
    check_processes(cfg.trainer)
    if not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed must lie between 0 and {2**32 - 1}, got {cfg.seed}")
    seed_everything(cfg.seed, workers=True, verbose=False)
    find_autoencoder(cfg)
    data: ImageDataModule = instantiate(cfg.data)
    refuse_ignored_weighting(cfg)
    refuse_ignored_augmentation(cfg)
    fit_model_to_data(cfg, data)
    if cfg.resume == "auto":
        origin = open_origin(lambda: find_earlier_run(cfg, cell))
    changed = [] if origin is None else check_origin(origin, cfg, data.class_names)
    continue_loggers(cfg, origin, run_name(overrides, cell, cfg.run_dir))
    callbacks = [instantiate_sharing(c, {}) for c in cfg.callback.values() if c is not None]
    loggers = [instantiate(c) for c in (cfg.logger or {}).values() if c is not None]
    quiet_loggers(loggers)
    trainer = build_trainer(cfg.trainer, callbacks, loggers)
    module: DiffusionModule = instantiate(cfg.module)
    check_optimizer(module.optimizer)
    began = (
        [] if origin is not None or cfg.init is None else list(load_weights(module, cfg.init, cfg.init_weights, cfg))
    )
    module.forgets_optimizer = any(change.resets_optimizer for change in changed)
    for callback in callbacks:
        if isinstance(callback, LastCheckpoint):
            callback.interruption = interruption
    budget = budget_of(trainer)
    if origin is not None and is_finished(origin, budget.limits):
        say_finished(cfg, origin, budget.limits)
        return origin
    module.record = carried(cfg, overrides, origin, data.class_names)
    earlier = figures_before(origin)
    if origin is not None:
        trainer.callbacks.append(SameCheckpoint(origin.file, origin.step))  # type: ignore[attr-defined]
    lock, record = claim_for_all(cfg, origin, trainer.is_global_zero), {}
    if trainer.is_global_zero:
        if origin is not None:
            set_aside(Path(cfg.run_dir), origin)
        record = write_record(cfg, module, trainer, origin, earlier)
        begin = StartTable(cfg, [*remarks_on(cfg, origin, changed), *began], newest_value(earlier, "size/train_images"))
        trainer.callbacks.insert(0, begin)  # type: ignore[attr-defined]
        log.info("reading the data")

    start = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=None if origin is None else origin.file, weights_only=True)
        end_record(cfg, trainer, record)
    except Exception as error:
        if isinstance(error.__context__, Interrupted):  # Lightning's, of loaders that a signal left half-made
            raise error.__context__ from None
        raise
    finally:
        if lock is not None:
            lock.release()
        finish_wandb(trainer)
    if trainer.is_global_zero:
        model = module.denoiser
        guided = model.num_classes and model.null_class and module.label_dropout > 0  # by which guidance is learned
        drawing = settings_of_record(module.record["config"]) | ({"guidance": 2} if guided else {})
        run, longer = Path(cfg.run_dir).resolve(), doubled(budget.limits, budget.done(trainer))
        figures, seconds = trainer.callback_metrics, time.monotonic() - start
        print(end_report(run, trainer.global_step, seconds, figures, drawing, longer))
    return trainer


def remarks_on(cfg: DictConfig, origin: Origin | None, changed: Sequence[Change]) -> Iterator[str]:
    """Where a run begins, and what a resumed one changes."""
    if origin is not None:
        yield f"resuming from {origin.file}, step {origin.step}"
        yield from (f"  {remark}" for remark in remarks(changed))
    elif cfg.resume == "auto":
        yield "resume=auto: no earlier run has these settings; this one starts anew"
