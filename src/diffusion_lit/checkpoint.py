"""A checkpoint describes itself: the configuration travels with the weights, and both are data, not code.

Keys of ours beside Lightning's: `config` (resolved, plain containers), `class_names` (or None), `ema` (averaged
weights, by the names they have in `state_dict`) and `ema_num_updates`; an average of another name likewise.
"""

import inspect
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.space import relocate

__all__ = ["check_resumable", "find_checkpoint", "find_resume", "load_checkpoint", "load_denoiser"]

log = logging.getLogger(__name__)

SPACE = ("space._target_", "space.scale", "space.shift", "space.sha256")  # not where its autoencoder is
FIXED = ("model", "schedule", "parameterization", "loss._target_", "density._target_", *SPACE)
"""Settings that must match when a run is resumed."""


def find_checkpoint(path: str | Path) -> Path:
    """The file that `path` means: itself, or a run folder's last checkpoint.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    path = Path(path)
    if path.is_file():
        return path
    last = path / "checkpoints" / "last.ckpt"
    if last.is_file():
        return last
    if not path.exists():
        siblings = sorted(path.parent.glob("*/checkpoints/last.ckpt"))[-3:]
        hint = "".join(f"\n  {file.parents[1]}" for file in siblings)
        there = f"; beside it there are:{hint}" if siblings else ""
        raise FileNotFoundError(f"no checkpoint: {path} does not exist{there}\nGive a run's folder or a .ckpt file")
    raise FileNotFoundError(f"no checkpoint: the folder {path} has no checkpoints/last.ckpt; is it a run's folder?")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Everything in the checkpoint that `path` means, its tensors in memory; nothing in it is run.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not one of ours, or is damaged.
    """
    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is not a checkpoint, or is damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(checkpoint, dict) or not checkpoint.get("config"):
        raise ValueError(f"{file} has no configuration in it: it was not written by diffusion_lit.train")
    return checkpoint


def load_denoiser(
    path: str | Path, weights: str = "ema", device: torch.device | str = "cpu", autoencoder: str | Path | None = None
) -> tuple[Denoiser, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, and the checkpoint.

    Args:
        path: a run's folder or a checkpoint file.
        weights: `ema`, the averaged ones, or another average's name, or `raw`.
        device: where to put the model.
        autoencoder: where a latent model's autoencoder is now; None means where it was in training.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not one of ours, lacks the weights asked for, or has no use for an autoencoder.
    """
    checkpoint = load_checkpoint(path)  # its optimizer state has no business on the device
    averages = [key for key, value in checkpoint.items() if key.startswith("ema") and isinstance(value, dict) and value]
    if weights not in (choices := [*averages, "raw"]):
        raise ValueError(f"{find_checkpoint(path)} has no weights named {weights}; use weights={' or '.join(choices)}")
    state = checkpoint["state_dict" if weights == "raw" else weights]
    config = OmegaConf.create(checkpoint["config"])["denoiser"]
    config.space = relocate(config.space, autoencoder)
    denoiser: Denoiser = instantiate(config)
    prefix = "denoiser."
    denoiser.load_state_dict({name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)})
    return denoiser.to(device).eval(), checkpoint


def find_resume(cfg: DictConfig) -> Path | None:
    """The checkpoint that `resume=auto|PATH` means for the run `cfg`, or None if there is nothing to resume from.

    `auto` takes the newest last checkpoint below `output_root` whose model, schedule, parameterization and data are the
    run's.

    Raises:
        FileNotFoundError: if a path has no checkpoint.
        ValueError: if the checkpoint's model is not this run's.
    """
    if cfg.resume is None:
        return None
    if cfg.resume != "auto":
        return find_checkpoint(cfg.resume)
    runs = sorted(Path(cfg.output_root).glob("**/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    for file in runs:
        recorded = file.parents[1] / "config.yaml"
        if recorded.is_file() and not differences(load_config(recorded), cfg, (*FIXED, "data")):
            return file
    return None


def check_resumable(file: Path, cfg: DictConfig, class_names: list[str] | None) -> None:
    """Warn if the run `cfg` has other data than the checkpoint `file`.

    Raises:
        ValueError: if it has another model, or its classes have other names or another order.
    """
    checkpoint = load_checkpoint(file)
    if (names := checkpoint.get("class_names", class_names)) != class_names:
        raise ValueError(
            f"cannot resume from {file}: its classes are {names}, and the data's are {class_names}. What the model "
            "learned of a class would be taken for another's: use data with the same classes, or start anew without "
            "resume"
        )
    recorded = OmegaConf.create(checkpoint["config"])
    if changed := differences(recorded, cfg, ("data",)):
        log.warning("the data is not what %s was trained on: %s", file, ", ".join(changed))
    if changed := differences(recorded, cfg, FIXED):
        listed = "".join(f"\n  {key}: {old} in the checkpoint, {new} now" for key, (old, new) in changed.items())
        raise ValueError(
            f"cannot resume from {file} with another model:{listed}\nUse the checkpoint's, or start anew without resume"
        )


def load_config(path: Path) -> DictConfig:
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def differences(old: DictConfig, new: DictConfig, groups: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Each key of `groups` whose value differs, with both values; how fast data is loaded does not count."""
    before, after = flatten(old, groups), flatten(new, groups)
    for key in after.keys() - before.keys():  # an option that there was not yet
        before[key] = default_of(new, key)
    keys = sorted((before.keys() | after.keys()) - {"data.batch_size", "data.num_workers"})
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def default_of(cfg: DictConfig, key: str) -> Any:
    """What the class of a group takes where the option GROUP.NAME is not given; None if it has no such option."""
    group, _, name = key.partition(".")
    target = OmegaConf.select(cfg, f"{group}._target_")
    parameter = None if target is None else inspect.signature(get_class(target)).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def flatten(cfg: DictConfig, groups: tuple[str, ...]) -> dict[str, Any]:
    """The values of `groups`, which may themselves be values, by their dotted keys."""
    values: dict[str, Any] = {}
    for group in groups:
        chosen = OmegaConf.select(cfg, group)
        if isinstance(chosen, DictConfig):
            container = OmegaConf.to_container(chosen, resolve=True)
            assert isinstance(container, dict)
            values |= {f"{group}.{key!s}": value for key, value in container.items()}
        else:
            values[group] = chosen
    return values
