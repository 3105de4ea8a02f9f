"""Features on the disk, in pieces that are kept: of one image set, and of all together as much as there is room for."""

import hashlib
import json
import logging
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from diffusion_lit.counted import memory
from diffusion_lit.files import UnwritableError, remove_leftovers, replacing, write_json

__all__ = ["FeatureFolder", "prune"]

log = logging.getLogger(__name__)

PIECE = 500
"""Images whose features are one file: the same whatever the batch size and the number of processes."""
POLL = 0.05
"""Seconds between looks at whether another command is done."""


@dataclass(frozen=True)
class FeatureFolder:
    """Features of an image set by one extractor, in pieces.

    The folder's name is a checksum of all that decides the features (the images, how many, the extractor and its
    weights), so that those of another set, split, resolution or network are never taken for them.

    Args:
        parent: the folder of all such folders.
        described: all that decides the features, plain values.
        num_images: how many images there are.
    """

    parent: Path
    described: Mapping[str, Any]
    num_images: int

    @property
    def path(self) -> Path:
        return self.parent / hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def num_pieces(self) -> int:
        return -(-self.num_images // PIECE)

    def indices(self, piece: int) -> range:
        return range(piece * PIECE, min((piece + 1) * PIECE, self.num_images))

    def file(self, piece: int) -> Path:
        return self.path / f"{piece:06d}.npz"

    def begin(self) -> FileLock:
        """Make the folder, which says what is in it, and remove what a killed process has left half-written.

        Returns:
            The lock of the one command that may write there: another, which wants the same features, waits for them.

        Raises:
            UnwritableError: if the folder cannot be made.
        """
        lock, record = FileLock(self.path / ".lock"), self.path / "features.json"
        for attempt in count():
            with gate(self.parent), suppress(Timeout):
                if not record.is_file():
                    write_json(self.described, record)
                with suppress(PermissionError):  # it is somebody else's
                    os.utime(record)
                lock.acquire(timeout=0)
                break
            if attempt == 0:
                log.info("another command is computing the features in %s: waiting for them", self.path)
            time.sleep(POLL)
        remove_leftovers(self.path)
        return lock

    def write(self, piece: int, features: Tensor) -> None:
        with replacing(self.file(piece)) as file:
            np.savez(file, features=features.cpu().numpy())

    def read(self, piece: int) -> Tensor | None:
        """The features [B, d] of a piece; None if it is missing, or, with a warning, damaged."""
        file = self.file(piece)
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as stored:  # a ZIP file, which has checksums
                features = torch.from_numpy(stored["features"])
            if features.dtype != torch.float32 or features.ndim != 2 or len(features) != len(self.indices(piece)):
                raise ValueError(f"features {features.dtype} {list(features.shape)}")
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("%s is damaged (%s) and is made again", file, error)
            return None
        return features

    def features(self) -> Tensor | None:
        """All of them [N, d]; None if a piece is missing or damaged."""
        pieces = []
        for piece in range(self.num_pieces):
            if (features := self.read(piece)) is None:
                return None
            pieces.append(features)
        return torch.cat(pieces)


def gate(parent: Path) -> AbstractContextManager[object]:
    """The lock, taken, under which commands take or remove folders in `parent`; an UnwritableError if there is none.

    Nobody waits for a folder's own lock, which may be removed with it, but for this one.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return FileLock(parent / ".lock").acquire()
    except OSError as error:
        raise UnwritableError(f"{parent} cannot be written to ({error.strerror}); choose another folder") from error


def prune(parent: Path, max_bytes: float) -> None:
    """Remove features, those first that no command has read for longest, until all take at most `max_bytes`.

    What another command is computing or reading stays.

    Args:
        parent: the folder of all, which need not exist.
        max_bytes: how much there may be.
    """
    with gate(parent):
        folders = [path for path in parent.iterdir() if re.fullmatch(r"[0-9a-f]{32}", path.name)]
        sizes = {path: size_of(path) for path in folders}
        total = sum(sizes.values())
        for path in sorted(folders, key=last_used):
            if total <= max_bytes:
                return
            with suppress(OSError), FileLock(path / ".lock").acquire(timeout=0):  # Timeout is one
                shutil.rmtree(path)
                total -= sizes[path]
                log.info("removed %s: %s of features, used longest ago", path, memory(sizes[path]))


def size_of(folder: Path) -> int:
    total = 0
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another command may be renaming it
            total += file.stat().st_size
    return total


def last_used(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return (folder / "features.json").stat().st_mtime
    return 0.0
