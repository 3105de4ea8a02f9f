"""What a drawn image follows from: the same settings are the same image, in any command; and the command itself."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.shell import PATHS, by_key, command_line
from diffusion_lit.generate import Models, Setup
from diffusion_lit.labels import Labels
from diffusion_lit.source.layout import SPLITS

__all__ = ["repeat_command", "settings_of"]

FOLDERS = ("out", "cache")
"""Paths, whether or not there is anything yet."""


def settings_of(cfg: DictConfig, models: Models, setup: Setup, labels: Labels | None) -> dict[str, Any]:
    """All that decides what image i is, plain values."""
    described = None if labels is None else {type(labels).__name__: plain_fields(labels)}
    decoder = setup.denoiser.space.fingerprint
    return {
        "ckpt": models.contents[0],
        "guide": models.contents[1],
        "weights": cfg.weights,
        "guidance": cfg.guidance,
        "guidance_interval": OmegaConf.to_container(cfg.guidance_interval) if cfg.guidance_interval else None,
        "interpolate": cfg.get("interpolate"),
        "labels": described,
        "sampler": OmegaConf.to_container(cfg.sampler, resolve=True),
        "precision": setup.precision,
        "seed": cfg.seed,
        **({} if decoder is None else {"autoencoder": decoder}),
    }


def plain_fields(labels: Any) -> dict[str, Any]:
    """A description of labels as JSON gives it back."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(labels)))
    return fields


def repeat_command(command: str, cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The command that does the same again, or continues it, to be given in any folder."""
    given = by_key(overrides)
    for key in (*given, "out"):
        name, value = key.lstrip("+"), OmegaConf.select(cfg, key.lstrip("+"), default=None)
        word = name == "weights" or (name == "against" and value in SPLITS)  # whatever is called so in this folder
        named = name.rpartition(".")[2] in PATHS and not word
        if named and isinstance(value, str) and (Path(value).exists() or name in FOLDERS):
            given[key] = str(Path(value).expanduser().resolve())
    return command_line(command, given)
