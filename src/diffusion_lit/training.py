"""One training run, from its configuration to its last checkpoint."""

import logging
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from diffusion_lit.agreement import (
    choose_accelerator,
    fit_model_to_data,
    refuse_ignored_augmentation,
    refuse_ignored_weighting,
)
from diffusion_lit.budget import budget_of
from diffusion_lit.callback import LastCheckpoint
from diffusion_lit.checkpoint import find_checkpoint
from diffusion_lit.data import ImageDataModule
from diffusion_lit.feature.shared import instantiate_sharing
from diffusion_lit.files import write_json
from diffusion_lit.fine_tuning import load_weights
from diffusion_lit.interruption import Interrupted, Interruption
from diffusion_lit.module import DiffusionModule
from diffusion_lit.ranks import from_first_rank
from diffusion_lit.restore import restore_settings
from diffusion_lit.resume import Origin, check_origin, find_earlier_run, find_origin, is_finished, open_origin, read
from diffusion_lit.run_folder import claim_for_all, continue_loggers, say_finished, write_record
from diffusion_lit.settings import Change, plain_settings
from diffusion_lit.shell import command_line
from diffusion_lit.trainer import build_trainer, check_processes

__all__ = ["train"]

log = logging.getLogger(__name__)

INHERITED = ("model", "schedule", "parameterization")
"""What a run that begins with another's weights takes over of its settings."""


def train(cfg: DictConfig, overrides: Sequence[str] | None = None, cell: str | None = None) -> Trainer | None:
    """Train as `cfg` (conf/train.yaml, composed) says; the folder `cfg.run_dir` gets all that is written.

    Everything is built, and so checked, before any work starts.

    Args:
        cfg: the settings.
        overrides: the command line that `cfg` comes from: with `resume=RUN` the run's own settings hold, and these on
            top; None takes `cfg` as it stands.
        cell: in a sweep, the name of the job's folder.

    Returns:
        The trainer; None where the run to resume has been trained to its end already.

    Raises:
        Interrupted: if the process was asked to stop.
        ValueError: if a setting is wrong.
        FileNotFoundError: if data, weights or the checkpoint to resume from are missing.
    """
    with Interruption() as interruption:
        quiet_the_platform()
        origin = None
        if cfg.resume not in (None, "auto"):
            origin = open_origin(from_first_rank("RESUME", lambda: str(find_origin(cfg.resume).file)))
            if overrides is not None:
                cfg, overrides = restore_settings(origin.recorded, str(origin.file), cfg, overrides)
        elif cfg.init is not None and overrides is not None:
            source = find_checkpoint(cfg.init)
            given = {override.partition("=")[0] for override in overrides}
            cfg, overrides = restore_settings(read(source), str(source), cfg, overrides, INHERITED)
            for key in ("resolution", "image_channels", "num_classes"):
                if f"model.{key}" not in given:
                    cfg.model[key] = "auto"
        return run(cfg, overrides or (), origin, cell, interruption)


def run(
    cfg: DictConfig, overrides: Sequence[str], origin: Origin | None, cell: str | None, interruption: Interruption
) -> Trainer | None:
    choose_accelerator(cfg)
    check_processes(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: ImageDataModule = instantiate(cfg.data)
    refuse_ignored_weighting(cfg)
    refuse_ignored_augmentation(cfg)
    fit_model_to_data(cfg, data)
    if cfg.resume == "auto":
        found = from_first_rank("RESUME", lambda: str(getattr(find_earlier_run(cfg, cell), "file", "")))
        origin = open_origin(found) if found else None
    changed = [] if origin is None else check_origin(origin, cfg, data.class_names)
    continue_loggers(cfg, origin)
    callbacks = [instantiate_sharing(c, {}) for c in cfg.callback.values() if c is not None]
    loggers = [instantiate(c) for c in (cfg.logger or {}).values() if c is not None]
    trainer = build_trainer(cfg.trainer, callbacks, loggers)
    module: DiffusionModule = instantiate(cfg.module)
    began = load_weights(module, cfg.init, cfg.init_weights) if origin is None and cfg.init is not None else None
    module.forgets_optimizer = any(change.resets_optimizer for change in changed)
    for callback in callbacks:
        if isinstance(callback, LastCheckpoint):
            callback.interruption = interruption
    if origin is not None and is_finished(origin, budget_of(trainer).limits, trainer):
        say_finished(cfg, origin)
        return None
    module.record = {
        "config": plain_settings(cfg),
        "overrides": list(overrides),
        "started_in": os.getcwd(),
        "parent": str(origin.file.resolve()) if origin is not None else None,
        "class_names": data.class_names,
    }
    lock, record = claim_for_all(cfg, origin, trainer.is_global_zero), {}
    if trainer.is_global_zero:
        record = write_record(cfg, module, trainer, origin)
        announce(cfg, data, module, origin, changed, began)

    start = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=None if origin is None else origin.file, weights_only=True)
    except Exception as error:
        if isinstance(error.__context__, Interrupted):  # Lightning's, of loaders that a signal left half-made
            raise error.__context__ from None
        raise
    finally:
        if lock is not None:
            lock.release()
    if trainer.is_global_zero:
        write_json(record | {"finished": trainer.global_step}, Path(cfg.run_dir) / "run.json")
        report(cfg, trainer, time.monotonic() - start)
    return trainer


def announce(
    cfg: DictConfig,
    data: ImageDataModule,
    module: DiffusionModule,
    origin: Origin | None,
    changed: Sequence[Change],
    began: str | None,
) -> None:
    size = sum(p.numel() for p in module.denoiser.parameters())
    classes = f"{data.num_classes} classes" if module.denoiser.num_classes else "no classes"
    log.info("run folder: %s", cfg.run_dir)
    kind, side = module.denoiser.space.name, data.resolution
    log.info("model: %.1f M parameters; %s: %d x %d, %s", size / 1e6, kind, side, side, classes)
    gigabytes = 16 * size / 2**30  # weights, their average, and an optimizer's two moments, as float32
    free = shutil.disk_usage(cfg.run_dir).free / 2**30
    log.info("a checkpoint takes about %.2f GiB; %.1f GiB are free", gigabytes, free)
    if origin is not None:
        log.info("resuming from %s, step %d", origin.file, origin.step)
        for change in changed:
            log.info("  %s (%s)", change, change.meaning)
    elif cfg.resume == "auto":
        log.info("resume=auto: no earlier run has these settings; this one starts anew")
    if began is not None:
        log.info("beginning with %s", began)


def report(cfg: DictConfig, trainer: Trainer, seconds: float) -> None:
    """Say what was made, where it is, and what to try next."""
    run = Path(cfg.run_dir).resolve()
    figures = [
        f"{k} = {float(v):.4g}" for k, v in trainer.callback_metrics.items() if k == "val/loss" or k.startswith("fid/")
    ]
    grids = sorted((run / "samples").glob("*.png"))
    lines = [
        f"Trained to step {trainer.global_step} in {int(seconds // 60)}:{int(seconds % 60):02d}  {', '.join(figures)}"
    ]
    if grids:
        lines.append(f"  samples     {grids[-1]}")
    if (run / "metrics.csv").is_file():
        lines.append(f"  metrics     {run / 'metrics.csv'}")
    lines += [
        f"  checkpoint  {run / 'checkpoints' / 'last.ckpt'}",
        "Try next",
        "  " + command_line("sample", {"ckpt": run} | ({"guidance": 2} if cfg.model.num_classes else {})),
        "  " + command_line("train", {"resume": run, "trainer.max_steps": 2 * trainer.global_step}),
    ]
    print("\n" + "\n".join(lines))


def quiet_the_platform() -> None:
    """Silence what Lightning says on every run and nobody can act on."""
    for message in (
        ".*does not have many workers.*",  # datasets in memory are fastest without
        ".*The number of training batches.*",  # log_every_n_steps counts steps, not epochs
        ".*isinstance.treespec, LeafSpec.*",
        ".*Experiment logs directory.*exists and is not empty.*",  # it is the run's folder, which Hydra has just made
        ".*your dataloader is not resumable.*",  # it is: the data module says where to begin
        ".*The dirpath has changed from.*",  # a resumed run has a folder of its own
        ".*Grad strides do not match bucket view strides.*",  # 1 x 1 convolutions on a CPU
        ".*sync_dist=True.*",  # torchmetrics has already synchronised what is logged
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.captureWarnings(True)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
