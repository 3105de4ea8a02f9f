"""Frechet inception distance while training."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lit.callback.ema import averaged_weights
from diffusion_lit.callback.last_checkpoint import answer_signals
from diffusion_lit.data import ImageDataModule
from diffusion_lit.evaluation import FIDReference, measure_fid, mixed_labels
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import default_labels
from diffusion_lit.guidance import guided
from diffusion_lit.module import DiffusionModule
from diffusion_lit.sampler import Sampler

__all__ = ["FID"]

log = logging.getLogger(__name__)


class FID(Callback):
    """The Frechet distance between features of generated and of validation images (Heusel et al. 2017, eq. 6).

    Logged as `fid/EXTRACTOR_COUNT`, such as `fid/inception_10k`: a figure means nothing without both, and is biased
    upwards by few images. Classes are drawn in the proportions that they have among the validation images.

    Where a model works on latents, the validation images are the decoded ones: the figure, `fid/inception_10k_decoded`,
    is the generator's alone and not to be compared with one in pixels.

    Args:
        extractor, sampler: what the images are compared by, and how to sample.
        num_samples: how many images to generate; a ValueError under 2.
        every_n_steps: a validation computes it if at least so many optimizer steps have passed since the last time;
            there is a figure at the end of training in any case.
        batch_size: images generated at a time, on each rank.
        guidance: classifier-free guidance scale; 1 does not guide.
        seed: seed of the noise.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        sampler: Sampler,
        num_samples: int,
        every_n_steps: int = 1,
        batch_size: int = 250,
        guidance: float = 1.0,
        seed: int = 0,
    ) -> None:
        if num_samples < 2:
            raise ValueError(f"callback.fid.num_samples must be at least 2, got {num_samples}; papers use 50000")
        self.extractor, self.sampler = extractor.eval(), sampler
        self.num_samples, self.every_n_steps, self.batch_size = num_samples, every_n_steps, batch_size
        self.guidance, self.seed = guidance, seed
        count = f"{num_samples // 1000}k" if num_samples % 1000 == 0 else str(num_samples)
        self.metric_name = f"fid/{extractor.name}_{count}"
        self.reference: FIDReference | None = None
        self.announced = False
        self.last_step = 0

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.metric_name)

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_step = state_dict["last_step"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self.sampler.check(guided(pl_module.denoiser, self.guidance))
        pl_module.denoiser.space.check()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.global_step - self.last_step >= self.every_n_steps:
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self.last_step:
            self.measure(trainer, pl_module)

    @torch.no_grad()
    def measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate, compare and log, unless there are too few images to compare with."""
        assert isinstance(pl_module, DiffusionModule)
        num_real = len(trainer.datamodule.splits["val"])  # type: ignore[attr-defined]
        if num_real < 2:
            if self.announces(trainer):
                log.warning("%s is left out: it takes 2 validation images, and there is %d", self.metric_name, num_real)
            return
        name = self.metric_name + pl_module.denoiser.space.suffix
        reference = self.reference = self.reference or self.read_reference(trainer, pl_module)
        if min(num_real, self.num_samples) <= reference.num_features and self.announces(trainer):
            log.warning(
                f"{name} compares {self.num_samples} samples with {num_real} validation images in "
                f"{reference.num_features} dimensions. With too few images the covariances are singular: the figure is "
                "only good for following this run. Raise callback.fid.num_samples, or use fewer features."
            )
        with averaged_weights(trainer, pl_module):
            denoiser = guided(pl_module.denoiser, self.guidance)
            labels = default_labels(denoiser, range(self.num_samples))
            if reference.class_counts is not None and reference.class_counts.any():
                labels = mixed_labels(reference.class_counts.tolist(), self.num_samples)
            settings = (self.num_samples, labels, self.batch_size, self.seed, trainer.global_rank, trainer.world_size)
            value = measure_fid(
                denoiser, self.sampler, reference, *settings, on_step=lambda *_: answer_signals(trainer)
            )
        trainer.callback_metrics[name] = value
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value)}, trainer.global_step)
        self.last_step = trainer.global_step  # not before: a measurement that is cut is made again

    def announces(self, trainer: Trainer) -> bool:
        """Whether this is the first time, on the first rank."""
        first, self.announced = not self.announced, True
        return first and trainer.is_global_zero

    def read_reference(self, trainer: Trainer, pl_module: DiffusionModule) -> FIDReference:
        """The validation images, with the counts of their classes over all ranks."""
        data, denoiser = trainer.datamodule, pl_module.denoiser  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)

        def real() -> Iterator[tuple[Tensor, Tensor | None]]:
            for batch in data.evaluation_loader("val"):
                answer_signals(trainer)
                batch = batch.to(pl_module.device)
                yield denoiser.space.images(batch.images), batch.condition.label

        reference = FIDReference.of(self.extractor, real(), denoiser.num_classes, pl_module.device)
        if reference.class_counts is None or trainer.world_size == 1:
            return reference
        return replace(reference, class_counts=trainer.strategy.reduce(reference.class_counts, reduce_op="sum"))
