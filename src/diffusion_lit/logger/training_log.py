"""What a run logs of its training: the sizes of its parts once, and points of its curves."""

import torch
from lightning.pytorch import LightningModule, Trainer

from diffusion_lit.data import ImageDataModule
from diffusion_lit.logger.connector import log_figures
from diffusion_lit.logger.training_figures import TrainingFigures

__all__ = ["log_point", "log_sizes"]


def log_sizes(trainer: Trainer, num_parameters: int) -> None:
    """Log the number of parameters, and, of a data module, the training images and those of one step over all ranks."""
    sizes: dict[str, float] = {"size/parameters": num_parameters}
    data = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, ImageDataModule):
        batch = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        sizes |= {"size/train_images": len(data.splits["train"]), "size/batch": batch}
    log_figures(trainer, sizes)


def log_point(trainer: Trainer, module: LightningModule, figures: TrainingFigures) -> None:
    """After a step on which a point falls, log the figures of the steps since the last one, with callbacks', as a row.

    A callback with `training_figures(trainer, module) -> dict` is asked for its own. All ranks call this.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every == 0 or (trainer.global_step % every != 0 and not trainer.should_stop):
        return
    row = {f"train/{name}": value for name, value in figures.read(module.device).items()}
    row["train/lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "training_figures"):
            row |= callback.training_figures(trainer, module)
    log_figures(trainer, row)
    module.log("train/loss", torch.tensor(row["train/loss"]), prog_bar=True, logger=False)
