"""A model that comes in another form than a run's checkpoint, and the files that it is read from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from diffusion_lit.derived import HOMES
from diffusion_lit.trust.plain import plain, printable, read_json
from diffusion_lit.trust.tensor_file import load_tensors

__all__ = [
    *("PIXELS", "Foreign", "door", "named_tensors", "of_network", "read_metadata", "read_safetensors"),
    *("read_settings", "read_state", "within_size"),
]

PIXELS = {"_target_": "diffusion_lit.space.PixelSpace"}
MAX_SETTINGS = 10 * 2**20
"""Bytes of a file of settings; the largest that are known, with a list of betas, have 100 kB."""


@dataclass(frozen=True)
class Foreign:
    """A model with a single set of weights."""

    kind: str
    """What it is, for the log."""
    denoiser: Mapping[str, Any]
    """The denoiser's settings: network, schedule, parameterization and space."""
    weights: Mapping[str, Tensor]
    """The denoiser's, by the names of its state dict."""
    weights_name: str | None = None
    """`ema`, another average's name, or `raw`; None where nothing says which they are."""
    class_names: list[str] | None = None
    class_counts: list[int] | None = None
    step: int = 0
    """How many optimizer steps it was trained for, where that is known."""
    precision: str = "32-true"
    sampling: str = ""
    """How its own project draws from it, in our settings."""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    """Of these `variance` and `clip`, as far as they are known."""

    def checkpoint(self) -> dict[str, Any]:
        """The same, as a run's checkpoint has it; `unnamed` are weights of which nothing says which they are."""
        parts = {HOMES.get(name, name): part for name, part in self.denoiser.items() if name != "_target_"}
        key = (
            "unnamed"
            if self.weights_name is None
            else "state_dict"
            if self.weights_name == "raw"
            else self.weights_name
        )
        return {
            "config": {
                **parts,
                "denoiser": {"_target_": self.denoiser["_target_"]},
                "trainer": {"precision": self.precision},
                "sampler": dict(self.sampler),
            },
            "class_names": self.class_names,
            "class_counts": self.class_counts,
            "global_step": self.step,
            "kind": self.kind,
            "sampling": self.sampling,
            key: {f"denoiser.{name}": weight for name, weight in self.weights.items()},
        }


def of_network(network: Mapping[str, Any], process: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """A denoiser's settings, from those of its parts."""
    return {"_target_": "diffusion_lit.denoiser.Denoiser", "network": dict(network), **process, "space": dict(space)}


def door(name: str) -> ModuleType:
    """A module of this folder, loaded when a file needs it."""
    return import_module(f"{__package__}.{name}")


def within_size(file: Path, limit: int = MAX_SETTINGS) -> Path:
    """The file; a ValueError if it is larger than settings are, a FileNotFoundError if it is not there."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, and what lies beside it needs it")
    if (size := file.stat().st_size) > limit:
        raise ValueError(
            f"{file} has {size:,} bytes, and settings have at most {limit:,}: it is not a file of settings"
        )
    return file


def read_settings(file: Path) -> dict[str, Any]:
    """The plain values of a JSON file of settings.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is too large, is not JSON, or holds no values by name.
    """
    values = plain(read_json(within_size(file)), str(file))
    if not isinstance(values, dict):
        raise ValueError(f"{file} should hold settings by name, and has {printable(values)}")
    return values


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, safetensors or torch's.

    Raises:
        ValueError: if the file is damaged, or has anything but floating-point tensors by name in it.
    """
    if file.suffix == ".safetensors":
        return real(read_safetensors(file)[0], file)
    return named_tensors(load_tensors(file, "is not a state dict, or is damaged"), file)


def named_tensors(state: object, file: Path) -> dict[str, Tensor]:
    """The same; a ValueError unless it is floating-point tensors by name alone."""
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(w, Tensor) for k, w in state.items()):
        raise ValueError(f"{file} should hold tensors by name alone, and holds more, or none")
    return real(state, file)


def real(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The same tensors; a ValueError if some are not of floating-point numbers, as those of quantized weights."""
    for name, weight in state.items():
        if not weight.is_floating_point():
            raise ValueError(
                f"{file}: {printable(name)} is of {str(weight.dtype).removeprefix('torch.')}: quantized weights are "
                "not read here; give those that were trained"
            )
    return dict(state)


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file, which need not have any; a ValueError if it is damaged."""
    return read_safetensors(file, tensors=False)[1]


def read_safetensors(file: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, unless they are not asked for, and the metadata of a safetensors file.

    Raises:
        ValueError: if it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()} if tensors else {}  # noqa: SIM118
            return found, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is not a safetensors file, or is damaged ({error})") from error
