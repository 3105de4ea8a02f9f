"""What a drawn image follows from: the same settings are the same image, in any command; and the command itself."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.checkpoint import parts_of
from diffusion_lit.command_line.shell import PATHS, command_line
from diffusion_lit.distributed.collective import gathered_objects
from diffusion_lit.generate import Models, Setup, load_models
from diffusion_lit.labels import Labels

__all__ = ["content_of", "load_known", "repeat_command", "settings_of"]

FOLDERS = ("out", "cache")
"""Paths, whether or not there is anything yet."""


def load_known(cfg: DictConfig) -> tuple[Models, dict[str, str | None]]:
    """The models of `cfg`, and what was in the files that they were read from, by `content_of`; on all ranks the same.

    A run that is being trained replaces its checkpoint at any moment. What was replaced in the meantime is read again.

    Raises:
        FileNotFoundError: as `load_models`.
        ValueError: as `load_models`; and on all ranks, if they have read different checkpoints.
    """
    while True:
        contents, models = contents_of(cfg), load_models(cfg)
        if contents_of(cfg) == contents:
            break
    if any(other != contents for other in gathered_objects(contents)):
        raise ValueError(
            f"the processes of this command have read different checkpoints: {cfg.ckpt} is being trained, or is not "
            "the same on all machines. Give the command again, or a copy of the checkpoint"
        )
    return models, contents


def settings_of(
    cfg: DictConfig, contents: Mapping[str, str | None], setup: Setup, labels: Labels | None
) -> dict[str, Any]:
    """All that decides what image i is, plain values; `contents` as `load_known` gives them."""
    described = None if labels is None else {type(labels).__name__: plain_fields(labels)}
    decoder = setup.denoiser.space.fingerprint
    return {
        **contents,
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


def contents_of(cfg: DictConfig) -> dict[str, str | None]:
    return {key: None if cfg[key] is None else content_of(cfg[key]) for key in ("ckpt", "guide")}


def content_of(path: str) -> str:
    """The SHA-256 of a checkpoint, or of those of its files: one that a run has overwritten since is another."""
    sums = [checksum(file, file.stat().st_mtime_ns) for file in parts_of(path)]
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


@cache
def checksum(file: Path, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def repeat_command(command: str, cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The command that does the same again, or continues it, to be given in any folder."""
    parts = [override.partition("=") for override in overrides]
    given = {key: value if sign else None for key, sign, value in parts}  # ~key has no value
    for key in (*given, "out"):
        name, value = key.lstrip("+"), OmegaConf.select(cfg, key.lstrip("+"), default=None)
        named = name.rpartition(".")[2] in PATHS and name != "weights"  # of which these are `ema` or `raw`
        if named and isinstance(value, str) and (Path(value).exists() or name in FOLDERS):
            given[key] = str(Path(value).expanduser().resolve())
    return command_line(command, given)
