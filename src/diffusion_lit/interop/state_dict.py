"""State dicts of OpenAI's and DiT's code: weights alone, with the flags that their README prints in a file beside."""

import shlex
from pathlib import Path
from typing import Any

from diffusion_lit.interop.diffusers_folder import latents
from diffusion_lit.interop.foreign import PIXELS, Foreign, door, of_network, read_state, within_size

__all__ = ["files", "flags_file", "missing_flags", "read"]

MAX_FLAGS = 100_000
"""Bytes."""
EXAMPLES = {
    "improved-diffusion or guided-diffusion": "--image_size 64 --num_channels 128 --num_res_blocks 3 "
    "--learn_sigma True --diffusion_steps 4000 --noise_schedule cosine",
    "DiT": "--model DiT-XL/2 --image-size 256 --num-classes 1000",
}


def flags_file(path: Path) -> Path:
    """Where the flags of a state dict are written."""
    return path.with_suffix(".flags")


def missing_flags(path: Path) -> str:
    """What is said of weights that nothing describes."""
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
    of_latents = any(word.partition("=")[0] == "--model" for word in text.split())  # as only DiT's scripts have it
    network = door("dit" if of_latents else "openai_unet")
    try:
        flags = pairs(text) if of_latents else network.flags(text)
        settings = network.network_settings(flags)
        process: dict[str, Any] = network.process_settings(flags)
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from error
    sampler = process.pop("sampler", {"variance": "learned"})
    try:
        weights = network.weights_from(read_state(path), settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit {given.name} ({type(error).__name__}: {error})") from error
    return Foreign(
        f"{'DiT' if of_latents else 'OpenAI'}'s network, by the flags in {given.name}",
        of_network(settings, process, latents(path.parent) if of_latents else PIXELS),
        {f"network.{name}": weight for name, weight in weights.items()},
        sampling=f"its own sampler is sampler=ddpm sampler.variance={sampler['variance']}",
    )


def pairs(text: str) -> dict[str, str]:
    """The flags `--NAME VALUE` of a text; a ValueError if it has anything else."""
    words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ValueError(f"{text.strip()[:200]!r} is not a list of --NAME VALUE")
    return {name.removeprefix("--").replace("-", "_"): value for name, value in zip(names, values, strict=True)}
