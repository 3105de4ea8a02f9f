"""Files that EDM's and EDM2's recipes have written: a state dict as safetensors, its settings in the metadata.

What these projects publish are pickles, which hold programs. Those are refused with the recipe, which runs where they are
trusted: in the project's own environment.
"""

from pathlib import Path

from diffusion_lit.interop.foreign import PIXELS, Foreign, door, read_metadata, read_safetensors

__all__ = ["files", "read"]

PROJECTS = ("edm", "edm2")
"""Modules here; each says by `knows` whether metadata are its own, and what a pickle's owner is to do as `RECIPE`."""


def files(path: Path) -> list[Path] | None:
    """The file itself, if a recipe has written it; None otherwise.

    Raises:
        ValueError: if it is a pickle, which is refused.
    """
    if path.suffix == ".pkl" and path.is_file():
        recipes = "".join(f"\n{door(name).RECIPE}" for name in PROJECTS)
        raise ValueError(
            f"{path} is a pickle, which holds a program beside the weights: it is refused, and nothing in it was run. "
            f"Write its weights to a .safetensors file where you trust it, and give that{recipes}"
        )
    return [path] if path.suffix == ".safetensors" and path.is_file() and project_of(path) is not None else None


def project_of(path: Path) -> str | None:
    metadata = read_metadata(path)
    return next((name for name in PROJECTS if door(name).knows(metadata)), None) if metadata else None


def read(path: Path) -> Foreign:
    """The model of such a file.

    Raises:
        ValueError: if its settings have no equal here, its weights do not fit them, or it is damaged.
    """
    name = project_of(path)
    assert name is not None
    project = door(name)
    state, metadata = read_safetensors(path)
    try:
        settings = project.denoiser_settings(project.settings_from(metadata))
        weights = project.weights_from(state, settings["network"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold together ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Foreign(
        f"{name.upper()}'s network",
        {"_target_": "diffusion_lit.denoiser.Denoiser", "space": PIXELS, **settings},
        {f"network.{key}": weight for key, weight in weights.items()},
        "ema",
    )
