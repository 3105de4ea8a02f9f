"""What can be known to be wrong before the first image is drawn."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffusion_lit.command_line.shell import key_of
from diffusion_lit.condition import NO_CLASS
from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.evaluation.cells import Cell, as_list
from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.class_names import ClassNames, listed
from diffusion_lit.evaluation.ignored import DRAWN
from diffusion_lit.evaluation.image_set import ImageSet, StoredImages
from diffusion_lit.evaluation.report import FILES
from diffusion_lit.files import UnwritableError, refuse_folders
from diffusion_lit.generate import Models
from diffusion_lit.metrics import FeatureSet, Metric, Sets

__all__ = ["check_held_out", "check_images", "check_likelihoods", "check_place", "check_settings"]

log = logging.getLogger(__name__)


def check_settings(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise a ValueError for what can be seen to be wrong at once."""
    if cfg.ckpt is None and cfg.samples is None:
        raise ValueError("say what to evaluate: ckpt=RUN_OR_FILE of a model, or samples=PATH of images")
    for name, least in {"num_samples": 1, "batch_size": 1, "pairs": 0}.items():
        check_whole(name, cfg[name], least)
    if cfg.cache_gib is not None and not (isinstance(cfg.cache_gib, int | float) and cfg.cache_gib >= 0):
        raise ValueError(f"cache_gib must be a number of at least 0, or null for no bound, got {cfg.cache_gib}")
    if cfg.channels is not None:
        check_whole("channels", cfg.channels, 1)
    for name in ("steps", "seed", "guidance"):
        values = as_list(cfg[name])
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be one value, or a list of several that differ, got {cfg[name]}")
        for value in values:
            if name == "guidance" and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"guidance must be a number of at least 0, got {value}; 1 does not guide")
            if name == "seed" or (name == "steps" and value is not None):
                check_whole(name, value, 1 if name == "steps" else None)
    given = [key_of(override) for override in overrides]
    if cfg.steps is not None and "sampler.num_steps" in given:
        raise ValueError(f"steps={cfg.steps} and sampler.num_steps say two things: leave one out")
    if cfg.samples is not None and (ignored := [key for key in given if key.split(".")[0] in DRAWN]):
        raise ValueError(f"samples={cfg.samples} are images that there are: {', '.join(ignored)} would be ignored")


def check_whole(name: str, value: Any, least: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{bound}, got {value}")


def check_place(out: Path) -> None:
    """Make the folder of the report; an UnwritableError if it, or one of its files, cannot be written."""
    refuse_folders(out / name for name in FILES)
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UnwritableError(f"{out} cannot be written to ({error.strerror}); choose another folder") from error


def check_images(
    cells: Sequence[Cell],
    real: StoredImages | None,
    training: StoredImages | None,
    metrics: Mapping[str, Metric],
    extractors: Extractors,
    classes: ClassNames,
) -> None:
    """Raise a ValueError where images do not fit each other, an extractor or a metric; say where classes do not."""
    sets: dict[str, ImageSet | None] = {"generated": cells[0].images, "real": real, "training": training}
    shapes = {name: images.shape for name, images in sets.items() if images is not None}
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            words = [f"{c} x {h} x {w}" for c, h, w in (shape, other)]
            remedy = "; channels=1 reads image files in grey, channels=3 in colour" if shape[1:] == other[1:] else ""
            raise ValueError(
                f"the {first} images are {words[0]} and the {name} images {words[1]} (channels x height x width): make "
                f"them alike first, since how they are scaled decides the figures{remedy}"
            )
    if real is not None and training is not None and real.content == training.content:
        raise ValueError(
            "the real images are the training images: figures of memorization need images that the model was not "
            "trained on, against=PATH"
        )
    for extractor in extractors.values():
        extractor.check(*shape)
    for metric in metrics.values():
        metric.check()
    labelled = Sets(*(only_labels(images) for images in sets.values()))  # here all processes read all images, once
    for key, metric in metrics.items():
        for name, images in sets.items():
            reads = {"real": metric.needs_real, "training": metric.needs_training}.get(name, True)
            if reads and images is not None and len(images) < metric.min_images:
                less = f", set metrics.{key}.{metric.fewer} lower" if metric.fewer else ""
                raise ValueError(
                    f"{key} takes at least {metric.min_images} {name} images, and there are {len(images)}: take "
                    f"more{less}, or leave it out of metrics"
                )
        if metric.of_each_class:
            for name in ("generated", "training") if metric.needs_training else ("generated",):
                if missing := classes.missing(name):
                    raise ValueError(
                        f"{key} compares class by class, and there are real images, but no {name} ones, of: "
                        f"{listed(missing)}. Add or rename classes, or leave {key} out of metrics"
                    )
        metric.check_labels(labelled)

    if rank_and_size()[0] == 0:
        for note in classes.notes():
            log.warning(note)


def only_labels(images: ImageSet | None) -> FeatureSet:
    if images is None:
        return FeatureSet(torch.empty(0, 0))
    return FeatureSet(torch.empty(len(images), 0), images.labels(range(len(images))), images.asked)


def check_likelihoods(likelihoods: Mapping[str, Likelihood], models: Models | None, samples: str | None) -> None:
    """Raise a ValueError unless there is a model that has them."""
    if likelihoods and (models is None or samples is not None):
        raise ValueError(f"{', '.join(likelihoods)} are of a model, and samples= are images: give ckpt= instead")
    for likelihood in likelihoods.values():
        assert models is not None
        likelihood.check(models.denoiser)


def check_held_out(
    likelihoods: Mapping[str, Likelihood], models: Models | None, real: StoredImages | None, classes: ClassNames
) -> None:
    """Raise a ValueError where a likelihood would be of too few images, or of classes that the model does not have."""
    for key, likelihood in likelihoods.items():
        assert models is not None and real is not None
        if len(real) < 2:
            raise ValueError(f"{key} takes at least 2 real images, and there are {len(real)}: take more")
        model, known = models.denoiser, real.every_label
        if model.num_classes is None:
            continue
        labels = torch.full((1,), NO_CLASS) if known is None else known[likelihood.indices(len(real))]
        if foreign := torch.unique(labels[labels >= model.num_classes]).tolist():
            named = listed([classes.names[c] if c < len(classes.names) else str(c) for c in foreign])
            raise ValueError(
                f"{key} is of images of the model's {model.num_classes} classes, and there are real ones of others: "
                f"{named}. Rename these classes, or leave their images out"
            )
        if not model.null_class and (labels < 0).any():
            raise ValueError(
                f"{key} is of a model that has to know each image's class (model.null_class=false), and there are "
                "real images without one: leave them out"
            )
