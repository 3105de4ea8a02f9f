"""Our own exported models: weights as safetensors, with all that describes them inside, and in config.json beside."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.interop.foreign import Foreign, read_metadata, read_safetensors, read_settings
from diffusion_lit.trust.plain import plain, read_as

__all__ = ["RECORD", "WEIGHTS", "files", "read", "record_of", "write"]

WEIGHTS, RECORD = "model.safetensors", "config.json"
KEY = "diffusion_lit"
"""Of the metadata, and the value of `format` in it."""
FIELDS: dict[str, Any] = {
    "denoiser": dict[str, Any],
    "weights": str | None,
    "step": int,
    "precision": str,
    "class_names": list[str] | None,
    "class_counts": list[int] | None,
    "versions": dict[str, str],
    "sha256": str,
}


def record_of(model: Foreign, versions: Mapping[str, str]) -> dict[str, Any]:
    """All that describes an exported model, plain values; what is made of it elsewhere carries it too."""
    return {
        "format": KEY,
        "denoiser": dict(model.denoiser),
        "weights": model.weights_name,
        "step": model.step,
        "precision": model.precision,
        "class_names": model.class_names,
        "class_counts": model.class_counts,
        "sampler": dict(model.sampler),
        "versions": dict(versions),
    }


def write(model: Foreign, versions: Mapping[str, str], folder: Path) -> None:
    """Write the two files into a folder."""
    from safetensors.torch import save_file

    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.weights.items()}
    described = record_of(model, versions)
    record = {**described, "sha256": digest(weights, described)}
    save_file(weights, folder / WEIGHTS, {KEY: json.dumps(record)})  # of more keys the order is random
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def files(path: Path) -> list[Path] | None:
    """What an exported model is read from, its weights first; None of what is not one."""
    if path.is_dir() and (path / WEIGHTS).is_file() and (path / RECORD).is_file():
        return [path / WEIGHTS, path / RECORD]
    return [path] if path.suffix == ".safetensors" and path.is_file() and KEY in read_metadata(path) else None


def read(path: Path) -> Foreign:
    """An exported model, from its folder or from the file of its weights alone.

    Raises:
        ValueError: if it is damaged, or more is in it than belongs there.
    """
    file = path / WEIGHTS if path.is_dir() else path
    weights, metadata = read_safetensors(file)
    try:
        record = plain(json.loads(metadata[KEY]), str(file))
        found = {name: read_as(hint, record[name], f"{file}: {name}") for name, hint in FIELDS.items()}
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{file} does not say what model it is of ({type(error).__name__}: {error}): export it again"
        ) from error
    if path.is_dir() and read_settings(path / RECORD) != record:
        raise ValueError(
            f"{path / RECORD} is not what {file.name} was exported with: put back the one that was written with it, or "
            f"give the weights alone, ckpt={file}"
        )
    described = {name: value for name, value in record.items() if name != "sha256"}
    if found["sha256"] not in (digest(weights, described), digest(weights)):  # at first, of the tensors alone
        raise ValueError(f"{file} is damaged: it does not have the checksum that it was written with")
    if "_target_" not in found["denoiser"]:
        raise ValueError(f"{file}: denoiser has no _target_")
    return Foreign(
        "an exported model",
        found["denoiser"],
        weights,
        found["weights"],
        found["class_names"],
        found["class_counts"],
        found["step"],
        found["precision"],
        sampler=read_as(dict[str, Any], record.get("sampler", {}), f"{file}: sampler"),
    )


def digest(weights: Mapping[str, Tensor], described: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of tensors, their names, types, shapes and bytes, and of what describes them."""
    total = hashlib.sha256(b"" if described is None else json.dumps(described, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].contiguous()
        total.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        total.update(weight.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
