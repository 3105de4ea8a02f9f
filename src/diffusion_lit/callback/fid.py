"""Frechet inception distance while training."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lit.callback.average import averaged_weights
from diffusion_lit.callback.drawing import drawing
from diffusion_lit.callback.fid_checks import check_count, check_features
from diffusion_lit.callback.last_checkpoint import answer_signals
from diffusion_lit.data import ImageDataModule, Images
from diffusion_lit.evaluation import drawn_features, real_features
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.evaluation.reference import prepare
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.feature.degenerate import collapsed
from diffusion_lit.guidance import guided
from diffusion_lit.labels import Labels, LabelsInTurn, proportional_labels
from diffusion_lit.logger.connector import log_figures
from diffusion_lit.metrics import FeatureSet, FrechetDistance, Metric, Sets
from diffusion_lit.module import DiffusionModule
from diffusion_lit.sampler import Sampler
from diffusion_lit.terminal.progress import progress

__all__ = ["FID"]

log = logging.getLogger(__name__)


class FID(Callback):
    """The Frechet distance between features of generated and of validation images (Heusel et al. 2017, eq. 6).

    Logged as `fid/EXTRACTOR_COUNT`, such as `fid/inception_10k`: a figure means nothing without both, and is biased
    upwards by few images. Classes are drawn in the proportions that they have among the validation images. Any other
    metric can be taken of the same images, `kid/inception_10k`, and a checkpoint can follow it.

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
        num_steps: of the sampler, few, so that training is not held up; None is its own number, which one without
            such a number has anyway.
        metrics: others to take of the same images, by the same extractor; a ValueError for one that reads training
            images, or takes more images than there are.
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
        num_steps: int | None = None,
        **metrics: Metric,
    ) -> None:
        if num_samples < 2:
            raise ValueError(f"callback.fid.num_samples must be at least 2, got {num_samples}; papers use 50000")
        if num_steps is not None and hasattr(sampler, "num_steps"):
            sampler = replace(sampler, num_steps=num_steps)
        self.extractor, self.sampler = extractor.eval(), sampler
        self.num_samples, self.every_n_steps, self.batch_size = num_samples, every_n_steps, batch_size
        self.guidance, self.seed = guidance, seed
        count = f"{num_samples // 1000}k" if num_samples % 1000 == 0 else str(num_samples)
        self.suffix = f"{extractor.name}_{count}"
        self.metrics: dict[str, Metric] = {"fid": FrechetDistance(self.extractor), **metrics}
        for name, metric in self.metrics.items():
            check_features(name, metric, self.extractor)
            metric.extractor = self.extractor
            metric.check()
            if metric.needs_training:
                raise ValueError(f"callback.fid.{name} reads training images: leave it to diffusion_lit.evaluate")
            check_count(name, metric, num_samples, "generated")
        self.reference: FeatureSet | None = None
        self.announced = False
        self.last_step = 0

    @property
    def metric_name(self) -> str:
        return f"fid/{self.suffix}"

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
        if pl_module.denoiser.space.bounded:
            self.extractor.check(*pl_module.denoiser.image_shape)
        if (num_real := len(trainer.datamodule.splits["val"])) >= 2:  # type: ignore[attr-defined]
            for name, metric in self.metrics.items():
                if metric.needs_real:
                    check_count(name, metric, num_real, "validation")
            self.check_labels(pl_module.denoiser.num_classes, trainer.datamodule.splits["val"])  # type: ignore[attr-defined]

    def check_labels(self, num_classes: int | None, real: Images) -> None:
        """Raise a ValueError, before training, if a metric does not fit the labels, as far as these are known."""
        known: Tensor | None = getattr(real, "labels", None)
        if known is None and num_classes is not None:
            return
        drawn = self.labels(known, num_classes)
        classes = None if drawn is None else torch.tensor([drawn[i] for i in range(self.num_samples)])
        generated = FeatureSet(torch.empty(self.num_samples, 0), classes, asked=True)
        for metric in self.metrics.values():
            metric.check_labels(Sets(generated, FeatureSet(torch.empty(len(real), 0), known)))

    def labels(self, known: Tensor | None, num_classes: int | None) -> Labels | None:
        """Classes in the proportions of those of the real images, or else all in turn."""
        proportional = proportional_labels(known, num_classes)
        return proportional if proportional or num_classes is None else LabelsInTurn(tuple(range(num_classes)))

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
        suffix = self.suffix + pl_module.denoiser.space.suffix
        reference = self.reference = self.reference or self.read_reference(trainer, pl_module)
        num_features = reference.features.shape[1]
        if min(num_real, self.num_samples) <= num_features and self.announces(trainer):
            log.warning(
                f"fid/{suffix} compares {self.num_samples} samples with {num_real} validation images in {num_features} "
                "dimensions. With too few images the covariances are singular: the figure is only good for following "
                "this run. Raise callback.fid.num_samples, or use fewer features."
            )
        shown = drawing(trainer, "FID", self.num_samples, self.sampler)
        with averaged_weights(trainer, pl_module), shown as on_step:
            denoiser = guided(pl_module.denoiser, self.guidance)
            labels = self.labels(reference.labels, denoiser.num_classes)
            settings = (self.num_samples, labels, self.batch_size, self.seed, pl_module.device)
            generated = drawn_features(denoiser, self.sampler, self.extractor, *settings, on_step=on_step)
        for kind, images in {"generated": generated, "validation": reference}.items():
            if collapsed(images.features) and trainer.is_global_zero:
                log.warning("fid/%s: all %s images have the same features; figures mean nothing", suffix, kind)
        figures = {
            f"{name}/{suffix}": float(figure.value)
            for metric in self.metrics.values()
            for name, figure in metric.measure(Sets(generated, reference)).items()
        }
        figures = trainer.strategy.broadcast(figures)  # a rank may round otherwise, and all choose the same checkpoints
        log_figures(trainer, figures)
        self.last_step = trainer.global_step  # not before: a measurement that is cut is made again

    def announces(self, trainer: Trainer) -> bool:
        """Whether this is the first time, on the first rank."""
        first, self.announced = not self.announced, True
        return first and trainer.is_global_zero

    def read_reference(self, trainer: Trainer, pl_module: DiffusionModule) -> FeatureSet:
        """The validation images as the extractor sees them."""
        data, denoiser = trainer.datamodule, pl_module.denoiser  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        num_real = len(data.splits["val"])

        def real() -> Iterator[tuple[Tensor, Tensor | None]]:
            for batch in data.evaluation_loader("val"):
                answer_signals(trainer)
                batch = batch.to(pl_module.device)
                yield denoiser.space.images(batch.images), batch.condition.label
                work.advance(len(batch) * trainer.world_size)

        if self.extractor.learns:
            prepare(self.extractor, StoredImages(data.splits["train"], space=denoiser.space), data.num_classes)
        with progress("real images", num_real, "images") as work:
            return real_features(self.extractor.to(pl_module.device), real(), num_real)
