"""All that somebody needs to know to have the same figures, and the command that gives them."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.shell import PATHS, command_line

__all__ = ["protocol_of", "repeat_command"]


def protocol_of(
    cfg: DictConfig,
    results: Sequence[Mapping[str, Any]],
    real: StoredImages | None,
    training: StoredImages | None,
    extractors: Extractors,
) -> dict[str, Any]:
    """Plain values; of several results, what they share."""
    generated = [result["generated"] for result in results]
    shared = {key: value for key, value in generated[0].items() if all(one[key] == value for one in generated)}
    return {
        "num_generated": results[0]["count"],
        "real": None if real is None else real.protocol,
        "training": None if training is None else training.protocol,
        "extractors": {name: extractor.protocol() for name, extractor in extractors.items()},
        "metrics": settings_of_metrics(cfg),
        "generated": shared,
        "versions": versions(),
    }


def settings_of_metrics(cfg: DictConfig) -> dict[str, Any]:
    """What the metrics were asked for, without extractors, which are stated apart."""

    def without(node: dict[str, Any]) -> dict[str, Any]:
        inner = {key: without(value) if isinstance(value, dict) else value for key, value in node.items()}
        return {key: value for key, value in inner.items() if key != "extractor"}

    container = OmegaConf.to_container(cfg.metrics, resolve=True)
    assert isinstance(container, dict)
    return without({str(name): node for name, node in container.items() if node is not None})


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("diffusion-lit", "torch", "torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages}


def repeat_command(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The command that measures the same again, or continues it, to be given in any folder."""
    parts = [override.partition("=") for override in overrides]
    given = {key: value if sign else None for key, sign, value in parts}  # ~key has no value
    for key in (*given, "out"):
        name, value = key.lstrip("+"), OmegaConf.select(cfg, key.lstrip("+"), default=None)
        if name.rpartition(".")[2] in PATHS and isinstance(value, str) and (Path(value).exists() or name in FOLDERS):
            given[key] = str(Path(value).expanduser().resolve())
    return command_line("evaluate", given)


FOLDERS = ("out", "cache")
"""Paths, whether or not there is anything yet."""
