"""A checkpoint describes itself: the configuration travels with the weights, and both are data, not code.

Keys of ours beside Lightning's: `config` (resolved, plain containers), `overrides` (the command line), `started_in`
(where it was typed), `parent` (the checkpoint that the run continues, or None), `class_names` (or None), `ema`
(averaged weights, by the names they have in `state_dict`) and `ema_num_updates`; another average likewise.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.space import relocate

__all__ = ["damage", "find_checkpoint", "load_checkpoint", "load_denoiser", "peek"]


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
    if (found := damage(file)) is not None:
        raise ValueError(f"{file} is not a checkpoint, or is damaged: {found}")
    return torch.load(file, map_location="cpu", weights_only=True)


def damage(file: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None: whether all of it is there, and has the checksums it was given.

    torch itself reads a flipped bit as a weight.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except Exception as error:  # what reading bytes as an archive can end in
        return str(error) or type(error).__name__
    if bad is not None:
        return f"the checksum of {bad} is not what was written"
    return peek(file)[1]


def peek(file: Path) -> tuple[dict[str, Any] | None, str | None]:
    """A checkpoint whose tensors stay on the disk until they are used; or None, and what is wrong with it."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return None, "it holds more than data, which is never run"
    except Exception as error:  # torch's many ways to fail on bytes that mean nothing
        return None, f"it cannot be read ({type(error).__name__})"
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("config"), dict):
        return None, "it has no configuration in it: it was not written by diffusion_lit.train"
    return checkpoint, None


def load_denoiser(
    path: str | Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    autoencoder: str | Path | None = None,
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
