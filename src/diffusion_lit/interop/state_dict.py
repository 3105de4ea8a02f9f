"""State dicts of OpenAI's, DiT's and SiT's code, with the flags that their README prints in a file beside."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_lit.interop.diffusers_folder import latents
from diffusion_lit.interop.foreign import PIXELS, Foreign, door, named_tensors, of_network, read_state, within_size
from diffusion_lit.trust.tensor_file import load_tensors

__all__ = ["files", "flags_file", "is_state", "missing_flags", "read"]

MAX_FLAGS = 100_000
"""Bytes."""
EXAMPLES = {
    "improved-diffusion or guided-diffusion": "--image_size 64 --num_channels 128 --num_res_blocks 3 "
    "--learn_sigma True --diffusion_steps 4000 --noise_schedule cosine",
    "DiT": "--model DiT-XL/2 --image-size 256 --num-classes 1000",
    "SiT": "--model SiT-XL/2 --image-size 256 --num-classes 1000",
}
PROJECTS = {"openai_unet": "OpenAI", "dit": "DiT", "sit": "SiT"}
"""By the modules here that know them."""
RAW, AVERAGE = "model", "ema"
"""What DiT's and SiT's `train.py` calls the weights, which it saves with Adam's state and its flags."""


def flags_file(path: Path) -> Path:
    """Where the flags of a state dict are written."""
    return path.with_suffix(".flags")


def missing_flags(path: Path) -> str:
    """What is said of weights that nothing describes."""
    if path.name.startswith("diffusion_pytorch_model"):
        return f"{path} has weights alone, of a folder of diffusers: give the folder, {path.parent}"
    examples = "".join(f"\nof {project}:\n  {flags}" for project, flags in EXAMPLES.items())
    return (
        f"{path} has weights alone: it is a state dict of another project, and nothing says of what network. Write the "
        f"flags that its README prints for it, on one line, into {flags_file(path)}; such as{examples}"
    )


def files(path: Path) -> list[Path] | None:
    """What the model is read from, its weights first; None where no flags are beside the file."""
    described = path.is_file() and path.suffix != ".flags" and flags_file(path).is_file()
    return [path, flags_file(path)] if described else None


def read(path: Path) -> Foreign:
    """The model of a state dict.

    Raises:
        ValueError: if its flags have no equal here, its weights do not fit them, or a file is damaged.
    """
    given = flags_file(path)
    text = within_size(given, MAX_FLAGS).read_text(errors="replace")
    of_latents = any(word.partition("=")[0] == "--model" for word in text.split())  # as DiT's and SiT's scripts have it
    name = "openai_unet"
    try:
        flags: dict[str, Any] = {}
        if of_latents:
            flags = pairs(text)
            name = "sit" if flags.get("model", "").startswith("SiT") else "dit"
        network = door(name)
        flags = flags or network.flags(text)
        settings = network.network_settings(flags)
        process: dict[str, Any] = network.process_settings(flags)
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from error
    sampler = process.pop("sampler", {"variance": "learned", "clip": None})
    own = "ode sampler.clip=null" if name == "sit" else f"ddpm sampler.variance={sampler['variance']}"
    state, weights_name = weights_of(path)
    try:
        weights = network.weights_from(state, settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit {given.name} ({type(error).__name__}: {error})") from error
    return Foreign(
        f"{PROJECTS[name]}'s network, by the flags in {given.name}",
        of_network(settings, process, latents(path.parent) if of_latents else PIXELS),
        {f"network.{name}": weight for name, weight in weights.items()},
        weights_name,
        sampling=f"its own sampler is sampler={own}",
        sampler={key: sampler[key] for key in ("variance", "clip")},
    )


def weights_of(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The weights of a file, and which they are: the averages where training wrote it, else what nothing says.

    Raises:
        ValueError: if the file is damaged, or has anything else in it.
    """
    if path.suffix == ".safetensors":
        return read_state(path), None
    state = load_tensors(path, "is not a state dict, or is damaged", known=[Namespace])  # of flags
    if isinstance(state, dict) and {RAW, AVERAGE} <= state.keys():
        return named_tensors(state[AVERAGE], path), AVERAGE
    return named_tensors(state, path), None


def is_state(path: Path) -> bool:
    """Whether a file has the weights of such a network, which nothing describes."""
    try:
        return bool(weights_of(path)[0])
    except ValueError:
        return False


def pairs(text: str) -> dict[str, str]:
    """The flags `--NAME VALUE` of a text, by NAME; a ValueError if it has anything else."""
    words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ValueError(f"{text.strip()[:200]!r} is not a list of --NAME VALUE")
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
