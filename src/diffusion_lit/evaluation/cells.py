"""What is evaluated: images that there are, or one way to draw images, or several that are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.evaluation.image_files import open_images
from diffusion_lit.evaluation.image_set import DrawnImages, ImageSet, StoredImages
from diffusion_lit.generate import Models, Setup, set_up
from diffusion_lit.labels import Labels, ProportionalLabels
from diffusion_lit.members import chosen_members
from diffusion_lit.provenance import settings_of

__all__ = ["Cell", "as_list", "cells_of"]


@dataclass(frozen=True)
class Cell:
    """One way to have images: of a comparison, one of several."""

    named: Mapping[str, Any]
    images: ImageSet


def cells_of(cfg: DictConfig, models: Models | None, real: StoredImages | None) -> Iterator[Cell]:
    """What is measured: each sampler, with each number of steps, guidance and seed.

    Raises:
        ValueError: if a setting does not fit the model, or would be ignored.
    """
    if cfg.samples is not None:
        yield Cell({}, open_images(cfg.samples, "samples"))
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
        images = DrawnImages(setup, settings_of(own, setup, labels), seed, cfg.num_samples, labels)
        named = {"sampler": name, "steps": setup.num_steps, "guidance": guidance, "seed": seed}
        yield Cell({key: value for key, value in named.items() if len(varied[key]) > 1}, images)


def as_list(value: Any) -> list[Any]:
    return list(value) if OmegaConf.is_list(value) else [value]


def proportions(setup: Setup, real: StoredImages | None) -> Labels | None:
    """The classes of the images compared with, in their proportions, where these are known."""
    num_classes = setup.denoiser.num_classes
    known = None if real is None or num_classes is None else real.every_label
    if known is None or not (known >= 0).any() or int(known.max()) >= (num_classes or 0):
        return setup.by_index
    return ProportionalLabels(tuple(torch.bincount(known[known >= 0], minlength=num_classes or 0).tolist()))
