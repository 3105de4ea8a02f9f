"""One training run, from its configuration to its last checkpoint."""

import logging
import os
import time
import warnings
from pathlib import Path

from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.agreement import (
    choose_accelerator,
    fit_model_to_data,
    refuse_ignored_augmentation,
    refuse_ignored_weighting,
)
from diffusion_lit.checkpoint import check_resumable, find_resume, load_checkpoint
from diffusion_lit.data import ImageDataModule
from diffusion_lit.module import DiffusionModule
from diffusion_lit.shell import command_line

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Trainer:
    """Train as `cfg` (conf/train.yaml, composed) says; the folder `cfg.run_dir` gets all that is written.

    Everything is built, and so checked, before any work starts.

    Raises:
        ValueError: if a setting is wrong.
        FileNotFoundError: if data, weights or the checkpoint to resume from are missing.
    """
    quiet_the_platform()
    choose_accelerator(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    callbacks = [instantiate(c) for c in cfg.callback.values() if c is not None]
    loggers = [instantiate(c) for c in cfg.logger.values() if c is not None]
    trainer: Trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers)
    data: ImageDataModule = instantiate(cfg.data)
    refuse_ignored_weighting(cfg)
    refuse_ignored_augmentation(cfg)
    fit_model_to_data(cfg, data)
    module: DiffusionModule = instantiate(cfg.module)
    config = OmegaConf.to_container(cfg, resolve=True)
    module.record = {"config": config, "class_names": data.class_names}
    resume = find_resume(cfg)
    if resume is not None:
        check_resumable(resume, cfg, data.class_names)
    if trainer.is_global_zero:
        OmegaConf.save(OmegaConf.create(config), Path(cfg.run_dir) / "config.yaml")
        for logger in trainer.loggers:
            logger.log_hyperparams(config)  # type: ignore[arg-type]
        announce(cfg, data, module, resume)

    start = time.monotonic()
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        if resume is not None and not (Path(cfg.run_dir) / "checkpoints").exists():
            log.warning(
                "%s is at step %d already: raise trainer.max_steps to continue",
                resume,
                load_checkpoint(resume)["global_step"],
            )
        else:
            report(cfg, trainer, time.monotonic() - start)
    return trainer


def announce(cfg: DictConfig, data: ImageDataModule, module: DiffusionModule, resume: Path | None) -> None:
    size = sum(p.numel() for p in module.denoiser.parameters()) / 1e6
    classes = f"{data.num_classes} classes" if module.denoiser.num_classes else "no classes"
    log.info("run folder: %s", cfg.run_dir)
    kind, side = module.denoiser.space.name, data.resolution
    log.info("model: %.1f M parameters; %s: %d x %d, %s", size, kind, side, side, classes)
    if resume is not None:
        log.info("resuming from %s", resume)
    elif cfg.resume == "auto":
        log.info("resume=auto: no earlier run of this model and data below %s, starting anew", cfg.output_root)


def report(cfg: DictConfig, trainer: Trainer, seconds: float) -> None:
    """Say what was made, where it is, and what to try next."""
    run = Path(os.path.relpath(cfg.run_dir))
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
