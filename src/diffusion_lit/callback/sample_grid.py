"""A picture of what the model draws, as training proceeds."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from diffusion_lit.callback.average import averaged_weights, chosen_average
from diffusion_lit.callback.drawing import drawing
from diffusion_lit.callback.last_checkpoint import answer_signals
from diffusion_lit.distributed.collective import gathered_in_order
from diffusion_lit.figure import follow
from diffusion_lit.generate import condition_of, default_labels, generate
from diffusion_lit.guidance import guided
from diffusion_lit.module import DiffusionModule
from diffusion_lit.picture.grid import image_grid, titles_of
from diffusion_lit.picture.image import save_image
from diffusion_lit.sampler import Sampler

__all__ = ["SampleGrid"]


class SampleGrid(Callback):
    """Samples from the same noise and the same classes each time, so that successive grids show the same images mature.

    Written as PNG to `folder`, named by the step, and to every active logger that takes images; other pictures to
    folders beside it. Where the model has classes, each column is a class.

    Args:
        sampler, folder: how to sample, and the folder of the pictures.
        every_n_steps, every_n_epochs: optimizer steps, and epochs, between pictures, or None. There is a picture at the
            end of training in any case.
        rows, columns: size of the grid; where the model has up to 20 classes, it has as many columns.
        guidance: classifier-free guidance scale; 1 does not guide.
        seed: seed of the noise.
        raw: whether to draw the same images with the raw weights too, as `samples_raw`, where there is an average.
        strips: how many of the images to show on their way from noise as well, as `denoising`: a row each of what the
            model takes for the image, at up to nine of the sampler's steps.
        batch_size: images drawn at a time, on each rank.

    Raises:
        ValueError: if a number is not positive, `strips` is negative, or guidance is asked of a model without classes.
    """

    def __init__(
        self,
        sampler: Sampler,
        folder: str,
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        rows: int = 8,
        columns: int = 8,
        guidance: float = 1.0,
        seed: int = 0,
        raw: bool = False,
        strips: int = 0,
        batch_size: int = 64,
    ) -> None:
        self.sampler, self.folder = sampler, Path(folder)
        self.every_n_steps, self.every_n_epochs = every_n_steps, every_n_epochs
        self.rows, self.columns = rows, columns
        self.guidance, self.seed, self.raw, self.strips, self.batch_size = guidance, seed, raw, strips, batch_size
        for name in ("every_n_steps", "every_n_epochs", "rows", "columns", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"callback.sample_grid.{name} must be at least 1, got {value}")
        if strips < 0:
            raise ValueError(f"callback.sample_grid.strips must not be negative, got {strips}; 0 draws none")
        self.last_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self.sampler.check(guided(pl_module.denoiser, self.guidance))
        pl_module.denoiser.space.check()

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample, write and log one grid, unless this step has one already."""
        if trainer.global_step == self.last_step:
            return
        self.last_step = trainer.global_step
        with averaged_weights(trainer, pl_module):
            pictures = {"samples": self.sample(trainer, pl_module)}
            if self.strips:
                pictures["denoising"] = self.draw_strips(trainer, pl_module)
        if self.raw and chosen_average(trainer) is not None:
            with averaged_weights(trainer, pl_module, raw=True):
                pictures["samples_raw"] = self.sample(trainer, pl_module)
        if trainer.is_global_zero:
            for name, picture in pictures.items():
                self.write(trainer, name, picture)

    def sample(self, trainer: Trainer, module: LightningModule) -> Tensor:
        """The grid as uint8 [C, H, W]; ranks share its images out, each as many as any other."""
        assert isinstance(module, DiffusionModule)
        denoiser = guided(module.denoiser, self.guidance)
        columns = self.columns if denoiser.num_classes is None or denoiser.num_classes > 20 else denoiser.num_classes
        num = self.rows * columns
        labels = default_labels(denoiser, range(num))
        own = [i % num for i in range(trainer.global_rank, num + -num % trainer.world_size, trainer.world_size)]
        batches = [own[first : first + self.batch_size] for first in range(0, len(own), self.batch_size)]
        settings = (labels, self.seed, module.device)
        with drawing(trainer, "samples", num, self.sampler) as on_step:
            images = [generate(denoiser, self.sampler, batch, *settings, on_step=on_step) for batch in batches]
        every = gathered_in_order(torch.cat(images), num)
        return image_grid(every, columns, titles_of(labels, columns, module.record.get("class_names")))

    @torch.no_grad()
    def draw_strips(self, trainer: Trainer, module: LightningModule) -> Tensor:
        """The first images on their way from noise, a row each, uint8 [C, H, W]; each rank draws all of them."""
        assert isinstance(module, DiffusionModule)
        denoiser = guided(module.denoiser, self.guidance)
        condition = condition_of(default_labels(denoiser, range(self.strips)), module.device)
        walk = follow(denoiser, self.sampler, range(self.strips), condition, self.seed, module.device)
        steps = walk.shown()
        answer_signals(trainer)
        frames = torch.stack([walk.decode(frame) for frame in walk.estimates[steps]], dim=1)
        titles = [f"t={float(time):.2f}" for time in walk.times[steps]]
        return image_grid(frames.flatten(0, 1), len(steps), titles)

    def write(self, trainer: Trainer, name: str, picture: Tensor) -> None:
        step = trainer.global_step
        folder = self.folder if name == "samples" else self.folder.with_name(name)
        save_image(picture, folder / f"step_{step:07d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, step)
            elif isinstance(logger, WandbLogger):
                logger.log_image(name, [picture / 255], step)
