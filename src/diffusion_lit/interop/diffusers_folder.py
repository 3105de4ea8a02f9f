"""Folders of diffusers: a pipeline with its network and scheduler, or a network with a scheduler beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_lit.autoencoder import scale_and_shift
from diffusion_lit.interop.diffusers_sampler import limits_of, sampler_overrides
from diffusion_lit.interop.diffusers_scheduler import process_settings
from diffusion_lit.interop.foreign import PIXELS, Foreign, door, of_network, read_settings
from diffusion_lit.interop.weight_files import read_weights, weight_files
from diffusion_lit.trust.plain import printable, read_as

__all__ = ["CONFIG", "INDEX", "NETWORKS", "NOTE", "SCHEDULER", "files", "latents", "read"]

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
NOTE = "diffusion_lit.json"
"""What an export of ours says beside what diffusers' files can."""
PIPELINES = {
    "DDPMPipeline": "unet",
    "DDIMPipeline": "unet",
    "PNDMPipeline": "unet",
    "LDMPipeline": "unet",
    "DiTPipeline": "transformer",
}
"""Pipelines, and where each has its network."""
NETWORKS = {
    "UNet2DModel": "diffusers_unet",
    "DiTTransformer2DModel": "diffusers_dit",
    "Transformer2DModel": "diffusers_dit",
}
"""Networks, and the modules here that know them."""
OF_LATENTS = ("DiTTransformer2DModel", "Transformer2DModel")
AUTOENCODERS = ("vae", "vqvae")
"""Where a pipeline of latents has its autoencoder."""


def files(path: Path) -> list[Path] | None:
    """What a folder's model is read from, its weights first; None of what is not a folder of diffusers.

    Raises:
        FileNotFoundError: if a part is missing.
        ValueError: if it is of a kind that is not known here, or damaged.
    """
    if not path.is_dir() or not ((path / INDEX).is_file() or (path / CONFIG).is_file()):
        return None
    if not (path / INDEX).is_file() and "_class_name" not in read_settings(path / CONFIG):
        return None
    network, scheduler = parts(path)
    own = [file for file in (path / INDEX, path / NOTE) if file.is_file()]
    return [*weight_files(network), network / CONFIG, scheduler, *own]


def parts(path: Path) -> tuple[Path, Path]:
    """The folder of the network, and the file of the scheduler."""
    if not (path / INDEX).is_file():
        places = [path / SCHEDULER, path / "scheduler" / SCHEDULER, path.parent / "scheduler" / SCHEDULER]
        if (found := next((file for file in places if file.is_file()), None)) is None:
            raise FileNotFoundError(
                f"{path} has a network and no scheduler, so that nothing says what it was trained on: put the "
                f"{SCHEDULER} that belongs to it there, as {places[0]}. For DDPM's it is\n"
                '  {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, '
                '"num_train_timesteps": 1000, "prediction_type": "epsilon"}'
            )
        return path, found
    name = str(read_settings(path / INDEX).get("_class_name"))
    if name not in PIPELINES:
        raise ValueError(
            f"{path / INDEX} describes a {printable(name)}; of these there is an equal: {', '.join(PIPELINES)}"
        )
    network, scheduler = (path / part if (path / part).is_dir() else path for part in (PIPELINES[name], "scheduler"))
    return network, scheduler / SCHEDULER


def read(path: Path) -> Foreign:
    """The model of a folder.

    Raises:
        FileNotFoundError: if a part is missing.
        ValueError: if nothing here is equal to it, or it is damaged.
    """
    folder, scheduler = parts(path)
    config, process = read_settings(folder / CONFIG), read_settings(scheduler)
    name = str(config.get("_class_name"))
    if name not in NETWORKS:
        raise ValueError(
            f"{folder / CONFIG} describes a {printable(name)}; of these there is an equal: {', '.join(NETWORKS)}"
        )
    network = door(NETWORKS[name])
    state = read_weights(folder)
    note = read_settings(path / NOTE) if (path / NOTE).is_file() else {}
    own = {name: read_as(bool, note[name], f"{path / NOTE}: {name}") for name in ("null_class",) if name in note}
    try:
        settings = network.network_settings(config, **own)
        weights = network.weights_from(state, settings)
    except (KeyError, TypeError, AttributeError) as error:  # of values that no such network has
        raise ValueError(f"{folder} does not hold together ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    if settings["learn_variance"] and process.get("variance_type") == "learned":
        raise ValueError(
            f"{scheduler}: variance_type is learned, a variance itself, and our networks' outputs are learned_range, "
            "where it lies between two bounds"
        )
    own_space = read_as(dict[str, Any] | None, note.get("space"), f"{path / NOTE}: space")
    home = scheduler.parent.parent if scheduler.parent.name == "scheduler" else path
    index = read_settings(home / INDEX) if (home / INDEX).is_file() else {}
    encoded = name in OF_LATENTS or any(part in index or (home / part).is_dir() for part in AUTOENCODERS)
    space = own_space or (latents(home) if encoded else PIXELS)
    described = of_network(settings, process_settings(process, str(scheduler)), space)
    try:
        limits = limits_of(process)
    except ValueError as error:
        raise ValueError(f"{scheduler}: {error}") from error
    return Foreign(
        f"{name} with {process['_class_name']}, of diffusers",
        described,
        {f"network.{key}": weight for key, weight in weights.items()},
        read_as(str | None, note.get("weights"), f"{path / NOTE}: weights"),
        class_names(note, path / NOTE, index, home / INDEX),
        read_as(list[int] | None, note.get("class_counts"), f"{path / NOTE}: class_counts"),
        read_as(int, note.get("step", 0), f"{path / NOTE}: step"),
        sampling=said_of(process),
        sampler=limits,
    )


def said_of(process: Mapping[str, Any]) -> str:
    """How diffusers draws, as a sentence."""
    try:
        return f"its {process['_class_name']} draws as {' '.join(sampler_overrides(process))} does"
    except (ValueError, TypeError) as error:  # of values that no scheduler has
        return f"how its {process['_class_name']} draws cannot be repeated here to the letter: {error}"


def class_names(note: Mapping[str, Any], note_file: Path, index: Mapping[str, Any], file: Path) -> list[str] | None:
    """What the classes are called: as an export of ours says, or DiT's pipeline, which knows ImageNet's."""
    if note.get("class_names") is not None:
        return read_as(list[str], note["class_names"], f"{note_file}: class_names")
    if (table := index.get("id2label")) is None:
        return None
    named = read_as(dict[str, str], table, f"{file}: id2label")
    if sorted(named) != sorted(map(str, range(len(named)))):
        raise ValueError(f"{file}: id2label must name the classes 0 to {len(named) - 1}, each once")
    return [named[str(i)] for i in range(len(named))]


def latents(path: Path) -> dict[str, Any]:
    """The space of a model of latents; its autoencoder is the pipeline's, or given by `autoencoder=`."""
    folder = next((path / part for part in AUTOENCODERS if (path / part).is_dir()), path / AUTOENCODERS[0])
    config = read_settings(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    scale, shift = scale_and_shift(config, str(folder / CONFIG))
    return {
        "_target_": "diffusion_lit.space.LatentSpace",
        "autoencoder": str(folder.resolve()),
        "scale": scale,
        "shift": shift,
        "sha256": None,
    }
