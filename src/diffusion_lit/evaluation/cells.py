"""What is evaluated: images that there are, or one way to draw images, or several that are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.evaluation.image_files import open_images
from diffusion_lit.evaluation.image_set import DrawnImages, ImageSet, StoredImages
from diffusion_lit.generate import Setup, set_up
from diffusion_lit.labels import Labels, ProportionalLabels
from diffusion_lit.members import chosen_members
from diffusion_lit.sampling import settings_of

__all__ = ["Cell", "cells_of", "first_setup"]


@dataclass(frozen=True)
class Cell:
    """One way to have images: of a comparison, one of several."""

    named: Mapping[str, Any]
    images: ImageSet
    setup: Setup | None


def first_setup(cfg: DictConfig) -> Setup:
    """The model, whatever is drawn with it: its space, its classes."""
    plainly = OmegaConf.merge(cfg, {"guidance": 1.0, "seed": 0, "guide": None, "labels": None, "compile": False})
    assert isinstance(plainly, DictConfig)
    plainly.sampler = next(iter(chosen_members("sampler").values()))
    return set_up(plainly)


def cells_of(cfg: DictConfig, real: StoredImages | None) -> Iterator[Cell]:
    """What is measured: each sampler, with each number of steps, guidance and seed."""
    if cfg.samples is not None:
        yield Cell({}, open_images(cfg.samples, "samples"), None)
        return
    axes = {"sampler": chosen_members("sampler")}
    several = {name: as_list(cfg[name]) for name in ("steps", "guidance", "seed")}
    for sampler, steps, guidance, seed in product(axes["sampler"], *several.values()):
        own = OmegaConf.merge(cfg, {"guidance": guidance, "seed": seed})
        assert isinstance(own, DictConfig)
        own.sampler = axes["sampler"][sampler]
        if steps is not None:
            if "num_steps" not in own.sampler:
                raise ValueError(f"sampler={sampler} takes no number of steps, and steps={steps} would be ignored")
            own.sampler.num_steps = steps
        setup = set_up(own)
        labels = setup.by_index if cfg.labels is not None else proportions(setup, real)
        images = DrawnImages(setup, settings_of(own, setup, labels), seed, cfg.num_samples, labels)
        named = {"sampler": sampler, "steps": images.num_steps, "guidance": guidance, "seed": seed}
        varied = {"sampler": axes["sampler"], **several}
        yield Cell({k: v for k, v in named.items() if len(varied[k]) > 1}, images, setup)


def as_list(value: Any) -> list[Any]:
    return list(value) if OmegaConf.is_list(value) else [value]


def proportions(setup: Setup, real: StoredImages | None) -> Labels | None:
    """The classes of the images compared with, in their proportions, where these are known."""
    num_classes = setup.denoiser.num_classes
    known = None if real is None or num_classes is None else real.every_label
    if known is None or not (known >= 0).any() or int(known.max()) >= (num_classes or 0):
        return setup.by_index
    return ProportionalLabels(tuple(torch.bincount(known[known >= 0], minlength=num_classes or 0).tolist()))
