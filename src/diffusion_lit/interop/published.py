"""Files that the recipe for NVIDIA's networks has written: a state dict as safetensors, its settings in the metadata.

What EDM and EDM2 publish are pickles, which hold programs. Those are refused with the recipe, `nvlabs_pickle.py`, which
runs where they are trusted: in the project's own environment.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_lit.interop.foreign import PIXELS, Foreign, door, read_metadata, read_safetensors
from diffusion_lit.trust.plain import plain

__all__ = ["files", "read"]

KEY = "nvlabs"
"""Of the metadata that the recipe writes."""


def files(path: Path) -> list[Path] | None:
    """The file itself, if the recipe has written it; None otherwise.

    Raises:
        ValueError: if it is a pickle, which is refused.
    """
    if path.suffix == ".pkl" and path.is_file():
        recipe, target = Path(__file__).with_name("nvlabs_pickle.py"), path.with_suffix(".safetensors").resolve()
        command = shlex.join(["python", str(recipe), str(path.resolve()), str(target)])
        raise ValueError(
            f"{path} is a pickle, which holds a program beside the weights: it is refused, and nothing in it was run. "
            "If it is a network of EDM or EDM2 that you trust, give this in a checkout of that project, to its own "
            f"Python, and then the file that it writes:\n  PYTHONPATH=. {command}"
        )
    return [path] if path.suffix == ".safetensors" and path.is_file() and KEY in read_metadata(path) else None


def described(metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """The project whose network a file holds, and the settings of its denoiser; None if the recipe did not write it.

    Raises:
        ValueError: if the metadata is damaged, or describes what cannot be expressed.
    """
    if KEY not in metadata:
        return None
    try:
        config = plain(json.loads(metadata[KEY]), f"its metadata {KEY}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its metadata {KEY} is not JSON ({error}): convert the pickle again") from error
    if not isinstance(config, dict):
        raise ValueError(f"its metadata {KEY} should hold settings by name: convert the pickle again")
    name = "edm2" if config.get("class_name") == "Precond" else "edm"
    return name, door(name).denoiser_settings(config)


def read(path: Path) -> Foreign:
    """The model of such a file.

    Raises:
        ValueError: if its settings have no equal here, its weights do not fit them, or it is damaged.
    """
    state, metadata = read_safetensors(path)
    try:
        found = described(metadata)
        assert found is not None, "`files` has looked"
        name, settings = found
        weights = door(name).weights_from(state, settings["network"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold together ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Foreign(
        f"a network of {name.upper()}",
        {"_target_": "diffusion_lit.denoiser.Denoiser", "space": PIXELS, **settings},
        {f"network.{key}": weight for key, weight in weights.items()},
        "ema",
        sampler={"clip": None},  # as their samplers are
    )
