"""What can be known to be wrong before the first image is drawn."""

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.cells import Cell
from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.image_set import ImageSet, StoredImages
from diffusion_lit.metrics import Metric

__all__ = ["check_images", "check_settings"]


def check_settings(cfg: DictConfig) -> None:
    """Raise a ValueError for what can be seen to be wrong at once."""
    if (cfg.ckpt is None) == (cfg.samples is None) and cfg.ckpt is None:
        raise ValueError("say what to evaluate: ckpt=RUN_OR_FILE of a model, or samples=PATH of images")
    for name in ("num_samples", "batch_size"):
        if not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {cfg[name]}")
    if cfg.samples is not None:
        drawn = {"steps": None, "guidance": 1.0, "guide": None, "guidance_interval": None, "labels": None, "seed": 0}
        if ignored := [f"{name}={cfg[name]}" for name, default in drawn.items() if cfg[name] != default]:
            raise ValueError(f"samples= are images that there are, and {', '.join(ignored)} would be ignored")


def check_images(
    cells: Sequence[Cell],
    real: StoredImages | None,
    training: StoredImages | None,
    metrics: Mapping[str, Metric],
    likelihoods: Mapping[str, Likelihood],
    extractors: Extractors,
) -> None:
    """Raise a ValueError where images do not fit each other, an extractor or a metric."""
    sets: dict[str, ImageSet | None] = {"generated": cells[0].images, "real": real, "training": training}
    shapes = {name: images.shape for name, images in sets.items() if images is not None}
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            words = [f"{c} x {h} x {w}" for c, h, w in (shape, other)]
            raise ValueError(
                f"the {first} images are {words[0]} and the {name} images {words[1]} (channels x height x width): make "
                "them alike first, since how they are scaled decides the figures"
            )
    for extractor in extractors.values():
        extractor.check(*shape)
    for key, metric in metrics.items():
        for name, images in sets.items():
            few = images is not None and len(images) < metric.min_images
            if few and (name != "real" or metric.needs_real):
                assert images is not None
                raise ValueError(
                    f"{key} takes at least {metric.min_images} {name} images, and there are {len(images)}: take more, "
                    f"or leave it out of metrics"
                )
    if likelihoods and cells[0].setup is None:
        raise ValueError(f"{', '.join(likelihoods)} are of a model, and samples= are images: give ckpt= instead")
    for likelihood in likelihoods.values():
        assert cells[0].setup is not None
        likelihood.check(cells[0].setup.denoiser)
