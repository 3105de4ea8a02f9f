"""What the chosen parts of a run must agree on."""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.described import describe
from diffusion_lit.command_line.kind import fits, schema_of
from diffusion_lit.data import ImageDataModule
from diffusion_lit.resolution import shortest
from diffusion_lit.space import relocate

__all__ = [
    "check_numbers",
    "choose_accelerator",
    "find_autoencoder",
    "fit_model_to_data",
    "refuse_ignored_augmentation",
    "refuse_ignored_weighting",
]

log = logging.getLogger(__name__)

LEAST = {"val_check_interval": 1, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "num_nodes": 1}
LEAST |= {"gradient_clip_val": 0, "log_every_n_steps": 0}
"""The least value of settings that Lightning takes whatever they are."""

UNAUGMENTED = {"_target_": "diffusion_lit.augmentation.NoAugmentation"}


def choose_accelerator(cfg: DictConfig) -> None:
    """Replace `auto` by a GPU where there is one, else the CPU; a ValueError for another that is not there."""
    # Apple's GPUs are not chosen: they lack float64, which schedules need.
    there = ["cpu", "gpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if cfg.trainer.accelerator == "auto":
        cfg.trainer.accelerator = "gpu" if "gpu" in there else "cpu"
    elif cfg.trainer.accelerator not in there:
        raise ValueError(
            f"trainer.accelerator={cfg.trainer.accelerator} cannot be used here: torch finds no CUDA GPU. Use "
            f"trainer.accelerator=cpu (with trainer.devices={cfg.trainer.devices} processes, if that is meant), or auto"
        )


def check_numbers(cfg: DictConfig) -> None:
    """Raise a ValueError for a number of `cfg` (conf/trainer) that means nothing."""
    by_epochs = cfg.get("check_val_every_n_epoch") is not None  # of which an interval may be a share
    for name, least in LEAST.items():
        value = cfg.get(name)
        if value is not None and not value >= least and not (by_epochs and name == "val_check_interval"):
            none = "; null does not clip" if name == "gradient_clip_val" else ""
            raise ValueError(f"trainer.{name} must be at least {least}, got {value}{none}")
    if isinstance(cfg.devices, int) and cfg.devices < 1 and not (cfg.devices == -1 and cfg.accelerator != "cpu"):
        raise ValueError(f"trainer.devices={cfg.devices} must be at least 1, or -1 for all GPUs where there are any")


def refuse_ignored_weighting(cfg: DictConfig) -> None:
    """Raise a ValueError if a weighting was chosen and the loss has none."""
    if "weighting" not in cfg.loss and cfg.weighting._target_ != "diffusion_lit.weighting.UnitWeighting":
        name = cfg.loss._target_.rpartition(".")[2]
        raise ValueError(f"{name} has no weighting and would ignore {cfg.weighting._target_}: use weighting=unit")


def refuse_ignored_augmentation(cfg: DictConfig) -> None:
    """Raise a ValueError if the data module draws for another augmentation than the chosen one."""
    drawn = OmegaConf.select(cfg, "data.augmentation") or UNAUGMENTED
    if drawn != cfg.augmentation:
        raise ValueError(
            f"{cfg.data._target_} augments by {drawn}, and would ignore augmentation={cfg.augmentation}: let its "
            "configuration say augmentation: ${augmentation}, or use augmentation=none"
        )


def find_autoencoder(cfg: DictConfig) -> None:
    """Encode images by the autoencoder of `autoencoder=` where the folder of `data.latents` has moved."""
    latents = cfg.data.get("latents")
    if cfg.autoencoder is not None and latents is not None and not Path(latents).is_dir():
        log.info("data.latents=%s is not there: images are encoded by autoencoder=%s", latents, cfg.autoencoder)
        cfg.data.latents = cfg.autoencoder


def fit_model_to_data(cfg: DictConfig, data: ImageDataModule) -> None:
    """Replace each `auto` of the model and space by what the data is; a ValueError if a value disagrees with it."""
    channels, *sides = data.x_0_shape
    resolution = shortest(*sides)
    facts: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": channels,
        "num_classes": data.num_classes,
    }
    if "augmentation_dim" in cfg.model:
        facts["augmentation_dim"] = 0 if data.augmentation is None else data.augmentation.dim
    for key, fact in facts.items():
        if key not in cfg.model:
            raise ValueError(f"the configuration of {cfg.model._target_} has no {key}: let it say {key}: auto")
        if key == "resolution":
            refuse_squares_only(cfg.model._target_, resolution)
        if cfg.model[key] == "auto":
            cfg.model[key] = fact
        elif not same(cfg.model[key], fact) and not (key == "num_classes" and cfg.model[key] is None):
            raise ValueError(
                f"model.{key}={cfg.model[key]} does not fit the data, whose {key} is {fact}; leave it at auto"
            )
    space = relocate(data.space.config(), cfg.autoencoder)
    if cfg.space == "auto":
        cfg.space = space
    elif cfg.space != OmegaConf.create(space):
        raise ValueError(f"space={cfg.space} does not fit the data, whose space is {space}; leave it at auto")


def same(value: Any, fact: Any) -> bool:
    """Whether a setting says what is so: [64, 64] says 64."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
    return bool(plain == fact or plain == [fact, fact])


def refuse_squares_only(target: str, resolution: int | list[int]) -> None:
    """Raise a ValueError if images are not square, and the network that `target` names takes one number alone."""
    argument = None if (cls := describe(target)) is None else cls.arguments.get("resolution")
    if argument is not None and not fits(resolution, schema_of(argument)):
        raise ValueError(
            f"{target} draws squares, and the data's images are {resolution}: set data.resolution={resolution[0]}, or "  # type: ignore[index]
            "choose a network that takes [height, width]"
        )
