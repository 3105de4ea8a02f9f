"""What is evaluated: images that there are, or one way to draw images, or several that are compared."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.members import chosen_members
from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.image_files import channels_of, open_images
from diffusion_lit.evaluation.image_set import DrawnImages, ImageSet, StoredImages
from diffusion_lit.generate import Models, Setup, set_up
from diffusion_lit.labels import Labels, proportional_labels
from diffusion_lit.provenance import settings_of

__all__ = ["Cell", "as_list", "cells_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One way to have images: of a comparison, one of several."""

    named: Mapping[str, Any]
    images: ImageSet


def cells_of(
    cfg: DictConfig,
    models: Models | None,
    contents: Mapping[str, str | None],
    real: StoredImages | None,
    classes: ClassNames,
) -> Iterator[Cell]:
    """What is measured: each sampler, with each number of steps, guidance and seed; `contents` as of `settings_of`.

    Raises:
        ValueError: if a setting does not fit the model, or would be ignored.
    """
    if cfg.samples is not None:
        yield Cell({}, open_images(cfg.samples, "samples", classes, channels_of(cfg, models)))
        return
    samplers = chosen_members("sampler")
    varied = {"sampler": list(samplers), **{name: as_list(cfg[name]) for name in ("steps", "guidance", "seed")}}
    for name, steps, guidance, seed in product(*varied.values()):
        own = OmegaConf.merge(cfg, {"guidance": guidance, "seed": seed})
        assert isinstance(own, DictConfig)
        own.sampler = samplers[name]
        if steps is not None:
            if "num_steps" not in own.sampler:
                raise ValueError(
                    f"sampler={name} chooses its steps itself, and steps={steps} would be ignored: leave one out"
                )
            own.sampler.num_steps = steps
        setup = set_up(own, models)
        labels = setup.by_index if cfg.labels is not None else proportions(setup, real)
        images = DrawnImages(setup, settings_of(own, contents, setup, labels), seed, cfg.num_samples, labels)
        named = {"sampler": name, "steps": setup.num_steps, "guidance": guidance, "seed": seed}
        yield Cell({key: value for key, value in named.items() if len(varied[key]) > 1}, images)


def as_list(value: Any) -> list[Any]:
    return list(value) if OmegaConf.is_list(value) else [value]


def proportions(setup: Setup, real: StoredImages | None) -> Labels | None:
    """The classes of the images compared with, in their proportions, where these are known; else all in turn."""
    if setup.denoiser.num_classes is None or real is None or (known := real.every_label) is None:
        return setup.by_index
    if (labels := proportional_labels(known, setup.denoiser.num_classes)) is None and rank_and_size()[0] == 0:
        log.warning("the real images are not all of the model's classes: these are drawn in turn, equally often")
    return labels or setup.by_index
