"""Models from checkpoints that a run may replace at any time: what was loaded is known by its own checksum."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from diffusion_lit.checkpoint import load_denoiser, parts_of
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.distributed.collective import gathered_objects
from diffusion_lit.files import checksum

__all__ = ["check_same", "content_of", "loaded"]


def loaded(path: str, *settings: Any) -> tuple[Denoiser, dict[str, Any], str]:
    """What `load_denoiser` gives, and the SHA-256 of the file; one that was replaced meanwhile is loaded again."""
    while True:
        content = content_of(path)
        denoiser, checkpoint = load_denoiser(path, *settings)
        if content_of(path) == content:
            return denoiser, checkpoint, content


def check_same(path: str, contents: tuple[str, str | None]) -> None:
    """Raise a ValueError unless all processes, each of which has loaded it by itself, have the same model.

    Args:
        path: of the checkpoint, for the message.
        contents: of `Models`.
    """
    if len({*gathered_objects(contents)}) > 1:
        raise ValueError(
            f"the processes of this command have read different checkpoints: {path} is being trained, or is not the "
            "same on all machines. Give the same command again, or copy the checkpoint and name the copy"
        )


def content_of(path: str) -> str:
    """The SHA-256 of a checkpoint, or of those of its files: one that a run has overwritten since is another."""
    sums = [remembered(file, file.stat().st_mtime_ns) for file in parts_of(path)]
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


@cache
def remembered(file: Path, changed: int) -> str:
    return checksum(file)
