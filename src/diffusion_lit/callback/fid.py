"""Frechet inception distance while training."""

import logging

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics.image import FrechetInceptionDistance

from diffusion_lit.callback.ema import averaged_weights
from diffusion_lit.data import ImageDataModule
from diffusion_lit.data.order import EvaluationOrder
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import default_labels, generate
from diffusion_lit.guidance import guided
from diffusion_lit.module import DiffusionModule
from diffusion_lit.sampler import Sampler

__all__ = ["FID"]

log = logging.getLogger(__name__)


class FID(Callback):
    """The Frechet distance between features of generated and of validation images (Heusel et al. 2017, eq. 6).

    Logged as `fid/EXTRACTOR_COUNT`, such as `fid/inception_10k`: a figure means nothing without both, and is biased
    upwards by few images. Each rank generates its share of the images, the same images whatever the number of ranks.

    Where a model works on latents, the validation images are the decoded ones: the figure, `fid/inception_10k_decoded`,
    is the generator's alone and not to be compared with one in pixels.

    Args:
        extractor: what the images are compared by.
        sampler: how to sample.
        num_samples: how many images to generate.
        every_n_steps: a validation computes it if at least so many optimizer steps have passed since the last time;
            there is a figure at the end of training in any case.
        batch_size: images generated at a time, on each rank.
        guidance: classifier-free guidance scale; 1 is none.
        seed: of the noise.

    Raises:
        ValueError: if there are fewer than 2 samples.
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
            raise ValueError(
                f"callback.fid.num_samples must be at least 2, got {num_samples}; published figures use 50000"
            )
        self.extractor = extractor.eval()
        self.sampler = sampler
        self.num_samples = num_samples
        self.every_n_steps = every_n_steps
        self.batch_size = batch_size
        self.guidance = guidance
        self.seed = seed
        count = f"{num_samples // 1000}k" if num_samples % 1000 == 0 else str(num_samples)
        self.metric_name = f"fid/{extractor.name}_{count}"
        self.metric: FrechetInceptionDistance | None = None
        self.last_step = 0

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
        """Generate, compare and log."""
        assert isinstance(pl_module, DiffusionModule)
        self.last_step = trainer.global_step
        name = self.metric_name + pl_module.denoiser.space.suffix
        metric = self.metric = self.metric or self.reference(trainer, pl_module)
        denoiser = guided(pl_module.denoiser, self.guidance)
        order = EvaluationOrder(self.num_samples, self.batch_size, trainer.global_rank, trainer.world_size)
        with averaged_weights(trainer, pl_module):
            for addresses in order:
                batch = [index for _, index in addresses]
                labels = default_labels(denoiser, batch)
                images = generate(denoiser, self.sampler, batch, labels, self.seed, pl_module.device)
                metric.update(images, real=False)
        value = metric.compute()
        metric.reset()
        trainer.callback_metrics[name] = value
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value)}, trainer.global_step)

    def reference(self, trainer: Trainer, pl_module: DiffusionModule) -> FrechetInceptionDistance:
        """A metric that knows the features of the validation images, and keeps them."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        extractor = self.extractor.to(pl_module.device)
        space, shape = pl_module.denoiser.space, pl_module.denoiser.image_shape
        example = space.decode(torch.zeros(1, *shape, device=pl_module.device))
        extractor.num_features = num_features = extractor(example).shape[1]
        num_real = len(data.splits["val"])
        if trainer.is_global_zero and min(num_real, self.num_samples) <= num_features:
            log.warning(
                f"{self.metric_name}{space.suffix} compares {self.num_samples} samples with {num_real} validation "
                f"images in {num_features} dimensions. With too few images the covariances are singular: the figure "
                "is only good for following this run. Raise callback.fid.num_samples, or use fewer features.",
            )
        metric = FrechetInceptionDistance(extractor, reset_real_features=False).to(pl_module.device)
        for batch in data.evaluation_loader("val"):
            metric.update(space.images(batch.images.to(pl_module.device)), real=True)
        return metric
