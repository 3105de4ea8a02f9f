"""What a run is, said in one table before its first step."""

import logging
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.budget import Budget, budget_of, steps_an_epoch
from diffusion_lit.callback import FID, LastCheckpoint, SampleGrid
from diffusion_lit.callback.average import averages_of
from diffusion_lit.command_line.catalogue import is_own
from diffusion_lit.counted import memory
from diffusion_lit.data import ImageDataModule
from diffusion_lit.logger.csv import CSVLogger
from diffusion_lit.module import DiffusionModule
from diffusion_lit.picture.image import seen_as
from diffusion_lit.run.settings import Change
from diffusion_lit.terminal.screen import table

__all__ = ["StartTable", "length"]

log = logging.getLogger(__name__)


class StartTable(Callback):
    """Logs, before the first step, what the run is; by then its data has been counted.

    Args:
        cfg: the run's settings.
        remarks: lines that follow the table, such as what a resumed run changes.
        num_images: training images that a resumed run had so far; None where that is not known.
    """

    def __init__(self, cfg: DictConfig, remarks: Sequence[str] = (), num_images: float | None = None) -> None:
        self.cfg, self.remarks, self.num_images = cfg, remarks, num_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if trainer.is_global_zero:
            log.info("%s", table(list(rows(self.cfg, trainer, pl_module))))
            for remark in self.remarks:
                log.info("%s", remark)
            if self.num_images is not None:
                found = len(trainer.datamodule.splits["train"])  # type: ignore[attr-defined]
                change = Change("training images", int(self.num_images), found)
                if change.old != change.new:
                    log.warning("%s (%s)", change, change.meaning)
            workers = self.cfg.data.get("num_workers")
            starts = [f"starts {workers} loading processes"] if workers else []
            starts += ["compiles the network: a minute or more"] if self.cfg.execution.get("compile") else []
            log.info("taking the first step%s", f", which {' and '.join(starts)}" if starts else "")


def rows(cfg: DictConfig, trainer: Trainer, module: DiffusionModule) -> Iterator[tuple[str, str | Path]]:
    """What there is to say, by name."""
    denoiser, data = module.denoiser, trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    size = sum(p.numel() for p in denoiser.parameters())
    classes = f"{denoiser.num_classes} classes" if denoiser.num_classes else "no classes"
    yield "model", f"{type(denoiser.network).__name__}, {number(size)} parameters, {classes}"
    weighting = f", weighting {part(cfg.loss.weighting)}" if "weighting" in cfg.loss else ""
    yield (
        "learns",
        f"to predict {part(cfg.parameterization)} under the {part(cfg.schedule)} noise schedule; "
        f"loss {part(cfg.loss)}{weighting}, times drawn {part(cfg.density)}",
    )
    steps = f", {cfg.sampler.num_steps} steps" if "num_steps" in cfg.sampler else ""
    yield "sampler", f"{part(cfg.sampler)}{steps}{guidance(cfg.guidance)}"
    averages = ", ".join(f"{a.name} {a.length}" for a in averages_of(trainer))
    yield (
        "optimizer",
        f"{part(cfg.optimizer)}, learning rate {cfg.optimizer.get('lr', 'its default')}, {part(cfg.lr_schedule)}; "
        f"{f'weights averaged ({averages})' if averages else 'weights not averaged'}",
    )
    yield "data", described(data, part(cfg.augmentation))
    ranks, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    images = data.batch_size * ranks * accumulated
    factors = [f"{data.batch_size} in each of {ranks} processes"] if ranks > 1 else [f"{data.batch_size} at a time"]
    factors += [f"{accumulated} times"] if accumulated > 1 else []
    yield "batch", f"{images:,} images a step" + (f": {', '.join(factors)}" if images > data.batch_size else "")
    yield "device", f"{device(module.device, ranks)}, precision {trainer.precision}"
    yield "length", length(budget_of(trainer), steps_an_epoch(trainer), images, trainer.global_step)
    shown = denoiser.space.image_channels(denoiser.image_shape[0]) if denoiser.space.bounded else 3
    yield "evaluation", ", ".join(evaluations(trainer, shown)) or "none"
    bytes_each = 16 * size  # weights, their average, and an optimizer's two moments, as float32
    free = shutil.disk_usage(cfg.run_dir).free
    saved = "".join(f"every {c.every_n_steps:,} steps, " for c in of_kind(trainer, LastCheckpoint))
    yield "checkpoints", f"{saved}about {memory(bytes_each)} each; {memory(free)} are free"
    yield "figures", ", ".join(places(trainer)) or "not written: there is no logger"
    yield "folder", Path(cfg.run_dir)


def part(cfg: DictConfig) -> str:
    """The name by which one chooses what `cfg` describes; of a class from elsewhere, the class's."""
    cls = get_class(OmegaConf.to_container(cfg, resolve=False)["_target_"])  # type: ignore[call-overload, index]
    own = is_own(cls.__module__)
    return cls.__module__.rpartition(".")[2] if own else cls.__name__


def number(count: int) -> str:
    """Such as 1,234 or 35.7 M."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def guidance(scale: float) -> str:
    return "" if scale == 1 else f", guidance {scale:g}"


def described(data: ImageDataModule, augmentation: str) -> str:
    counts = ", ".join(f"{len(data.splits[split]):,} {name}" for split, name in SPLITS.items() if split in data.splits)
    kind = type(data).__name__.removesuffix("Data")
    height, width = data.sides
    shape = f"{height} x {width} x {data.channels}"
    classes = f", {data.num_classes} classes" if data.num_classes else ""
    stored = "" if data.space.bounded else f" encoded by {data.latents}" if data.latents else " as latents"
    return f"{kind}: {counts} images, {shape}{stored}{classes}; augmentation {augmentation}"


SPLITS = {"train": "training", "val": "validation"}


def device(device: torch.device, ranks: int) -> str:
    if device.type == "cuda":
        return f"{ranks} x {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"CPU, {f'{ranks} processes, ' if ranks > 1 else ''}{threads} thread{'s' if threads > 1 else ''}"


def length(budget: Budget, steps: float, images: int, step: int) -> str:
    """A budget in steps, epochs and images, as far as they are known.

    Args:
        budget: which may be limited by minutes alone.
        steps: an epoch's.
        images: a step's.
        step: where training is.
    """
    given = [f"trainer.{name}={limit:g}" for name, limit in budget.limits.items() if name != "max_steps"]
    limits = f" ({', '.join(given)})" if given else ""
    last = budget.final_step(step, steps, images)
    if math.isinf(last):
        return f"until {given[0]}"
    passes = last / steps
    epochs = "" if math.isinf(steps) else f" = {passes:,.{1 if passes < 1000 else 0}f} epochs"
    begun = f", of which {step:,} are done" if step else ""
    return f"{last:,.0f} steps{epochs} = {last * images:,.0f} images{limits}{begun}; time: said after the first steps"


def evaluations(trainer: Trainer, channels: int) -> Iterator[str]:
    """What is done besides training, with images of so many channels."""
    every = trainer.val_check_interval
    if trainer.enable_validation:
        epochs = trainer.check_val_every_n_epoch
        yield f"validation loss every {f'{epochs} epochs' if epochs else f'{every:,} steps'}"
    for fid in of_kind(trainer, FID):
        least = max(fid.every_n_steps, every) if isinstance(every, int) else fid.every_n_steps
        yield f"{fid.metric_name} every {least:,} steps"
    for grid in of_kind(trainer, SampleGrid):
        if grid.every_n_steps or grid.every_n_epochs:
            steps = f"{grid.every_n_steps:,} steps" if grid.every_n_steps else f"{grid.every_n_epochs} epochs"
            shown = seen_as(channels)
            yield f"pictures every {steps}{f' ({shown})' if shown else ''}"


def places(trainer: Trainer) -> Iterator[str]:
    """Where figures go."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            yield "W&B, offline" if run.offline else f"W&B {run.url}"
        elif isinstance(logger, TensorBoardLogger):
            yield f"TensorBoard in {Path(logger.log_dir).name}/"
        elif isinstance(logger, CSVLogger):
            yield logger.path.name
        else:
            yield type(logger).__name__


def of_kind(trainer: Trainer, kind: type) -> Iterable[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]
