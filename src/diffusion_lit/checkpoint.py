"""A checkpoint describes itself: the configuration travels with the weights, and both are data, not code.

Keys of ours beside Lightning's: `config` (resolved, plain containers, without what `diffusion_lit.derived` knows to
repeat other parts), `overrides` (the command line), `started_in` (where it was typed), `versions` (of the packages that
wrote it), `parent` (the checkpoint that the run continues, or None), `class_names` and `class_counts` of the training
images (or None), `ema` (averaged weights, by the names they have in `state_dict`) and `ema_num_updates`; another
average likewise.

Models in other forms (see `diffusion_lit.interop`) are read as checkpoints of weights alone.
"""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from diffusion_lit.average.reconstruction import asked_length, reconstruct
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.derived import denoiser_settings
from diffusion_lit.interop.readers import files_of, read_foreign
from diffusion_lit.interop.state_dict import is_state, missing_flags
from diffusion_lit.space import relocate
from diffusion_lit.trust.gate import trusted
from diffusion_lit.trust.plain import plain, read_as
from diffusion_lit.trust.tensor_file import load_tensors

__all__ = [
    *("choose_weights", "damage", "damaged_part", "find_checkpoint", "load_checkpoint", "load_denoiser", "parts_of"),
    "peek",
]

log = logging.getLogger(__name__)


def find_checkpoint(path: str | Path) -> Path:
    """The file that `path` means: itself, or a run folder's last checkpoint; or the folder of a model in another form.

    Raises:
        FileNotFoundError: if it does not exist, or a part of it is missing.
        ValueError: if it is a model that cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return path
    last = path / "checkpoints" / "last.ckpt"
    if last.is_file():
        return last
    if files_of(path) is not None:
        return path
    if not path.exists():
        siblings = sorted(path.parent.glob("*/checkpoints/last.ckpt"))[-3:]
        hint = "".join(f"\n  {file.parents[1]}" for file in siblings)
        there = f"; beside it there are:{hint}" if siblings else ""
        raise FileNotFoundError(f"no checkpoint: {path} does not exist{there}\nGive a run's folder or a .ckpt file")
    raise FileNotFoundError(f"no checkpoint: the folder {path} has no checkpoints/last.ckpt; is it a run's folder?")


def parts_of(path: str | Path) -> list[Path]:
    """The files that `load_checkpoint` reads. Raises what `find_checkpoint` raises."""
    place = find_checkpoint(path)
    return files_of(place) or [place]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Everything in the checkpoint that `path` means, its tensors in memory; nothing in it is run.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not one of ours, is damaged, or has more in its configuration than plain values.
    """
    file = find_checkpoint(path)
    checkpoint, found = peek(file, mmap=False)
    if checkpoint is None or (found := damaged_part(file)) is not None:
        raise ValueError(found)
    return checkpoint


def damage(file: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None: whether all of it is there, and has the checksums it was given.

    torch itself reads a flipped bit as a weight.
    """
    recorded, found = peek(file)
    return found if recorded is None else damaged_part(file)


def damaged_part(file: Path) -> str | None:
    """Which part of a checkpoint that can be read does not have its checksum, in a sentence, or None."""
    if files_of(file) is not None:  # whose readers have seen to that
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except MemoryError:
        raise
    except Exception as error:  # what reading bytes as an archive can end in
        bad = str(error) or type(error).__name__
    return None if bad is None else f"{file} is damaged: the checksum of {bad} is not what was written"


def peek(file: Path, mmap: bool = True) -> tuple[dict[str, Any] | None, str | None]:
    """A checkpoint, by default with its tensors left on the disk until they are used; or None, and what is wrong."""
    try:
        foreign = read_foreign(file)
    except (ValueError, FileNotFoundError) as error:
        return None, str(error)
    try:
        checkpoint = load_tensors(file, mmap=mmap) if foreign is None else foreign.checkpoint()
        ours = isinstance(checkpoint, dict) and all(isinstance(key, str) for key in checkpoint)
        if not ours or not isinstance(checkpoint.get("config"), dict) or not checkpoint["config"]:
            raise ValueError(f"{file} has no configuration in it: it was not written by diffusion_lit.train")
        checkpoint["config"] = plain(checkpoint["config"], str(file))
        if "class_names" in checkpoint:
            read_as(list[str] | None, checkpoint["class_names"], f"{file}: class_names")
        read_as(list[int] | None, checkpoint.get("class_counts"), f"{file}: class_counts")
    except ValueError as error:
        return None, missing_flags(file) if foreign is None and is_state(file) else str(error)
    return checkpoint, None


def choose_weights(checkpoint: dict[str, Any], weights: str, origin: str | Path, option: str = "weights") -> Any:
    """The weights of a checkpoint that `weights` names: `raw`, an average, or `power_LENGTH`, made of snapshots.

    What is not averaged, such as random frequencies, is as it is in training. A model of another project has a single
    set. Where nothing says which it is, `ema`, the default everywhere, takes it, and that is said; it is never taken
    for `raw`.

    Raises:
        ValueError: if the checkpoint lacks them, or what they would be made of.
    """
    if "unnamed" in checkpoint:
        if weights != "ema":
            raise ValueError(
                f"{origin} has one set of weights, and nothing says that they are {weights}: leave {option} out, which "
                "takes them as they are"
            )
        log.info("%s: %s; one set of weights, averaged or not, is all it has", origin, checkpoint["kind"])
        return checkpoint["unnamed"]
    raw = checkpoint.get("state_dict")
    if (length := asked_length(weights)) is not None:
        return {**(raw or {}), **reconstruct(checkpoint, find_checkpoint(origin), length)}
    choices = [key for key, value in checkpoint.items() if key.startswith("ema") and isinstance(value, dict) and value]
    choices += ["raw"] if raw is not None or not choices else []
    if weights not in choices:
        made = ["power_LENGTH"] if checkpoint.get("power_averages") else []
        raise ValueError(f"{origin} has no weights named {weights}; use {option}={' or '.join([*choices, *made])}")
    if weights == "raw":
        return raw
    return {**raw, **checkpoint[weights]} if isinstance(raw, dict) else checkpoint[weights]


def load_denoiser(
    path: str | Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    autoencoder: str | Path | None = None,
    allow: Sequence[str] = (),
) -> tuple[Denoiser, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, and the checkpoint.

    Args:
        path: a run's folder, a checkpoint file, or a model in another form (docs/export.md).
        weights: `ema`, the averaged ones, or another average's name, or `raw`; or `power_0.13`, an average of that
            length made of the snapshots of power-function averages.
        device: where to put the model.
        autoencoder: where a latent model's autoencoder is now; None means where it was in training.
        allow: modules of one's own whose classes the checkpoint may name (see `diffusion_lit.trust.gate`).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not one of ours, names a class that is neither this project's nor allowed, lacks the
            weights asked for, or has no use for an autoencoder.
    """
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)  # its optimizer state has no business on the device
    state = choose_weights(checkpoint, weights, file)
    if checkpoint.get("sampling"):
        log.info("%s: %s", file, checkpoint["sampling"])
    config = trusted(denoiser_settings(checkpoint["config"]), Denoiser, f"{file}: denoiser", allow)
    prefix = "denoiser."
    try:
        config.space = relocate(config.space, autoencoder)
        denoiser: Denoiser = instantiate(config)
        denoiser.load_state_dict({name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)})
    except (AttributeError, InstantiationException, RuntimeError, TypeError) as error:  # of values that do not fit
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise ValueError(f"{file} holds no model, or one of another version ({cause})") from error
    return denoiser.to(device).eval(), checkpoint
