"""Features of many images, computed in pieces that are kept: whatever ends the command, what is done stays."""

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from diffusion_lit.collective import decided, rank_and_size, wait_for_all
from diffusion_lit.evaluation.image_set import ImageSet
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.feature.degenerate import check_features
from diffusion_lit.files import remove_leftovers, replacing, write_json
from diffusion_lit.metrics import FeatureSet

__all__ = ["FeatureFolder", "extract"]

log = logging.getLogger(__name__)

PIECE = 500
"""Images whose features are one file: the same whatever the batch size and the number of processes."""


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
        """
        if not (record := self.path / "features.json").is_file():
            write_json(self.described, record)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another command is computing the features in %s: waiting for them", self.path)
            lock.acquire()
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


def begin(folders: Iterable[FeatureFolder], locks: ExitStack) -> None:
    for folder in sorted(folders, key=lambda folder: folder.path):  # in one order, or commands could wait in a circle
        locks.callback(folder.begin().release)


def describe(images: ImageSet, extractor: FeatureExtractor) -> dict[str, Any]:
    return {"images": images.content, "count": len(images), "shape": list(images.shape), **extractor.protocol()}


def extract(
    images: ImageSet,
    extractors: Mapping[str, FeatureExtractor],
    parent: Path,
    what: str,
    batch_size: int,
    device: torch.device | str,
    on_progress: Callable[[float], object],
    on_missing: Callable[[int], object],
) -> dict[str, FeatureSet]:
    """The features of all images by each extractor; those that are in `parent` already are not computed again.

    Processes share the pieces out, and all have all features in the end.

    Args:
        images: the images; a piece is drawn or read once for all extractors.
        extractors: by name.
        parent: where pieces are kept.
        what: the images, for messages, such as "generated images".
        batch_size, device: how many images are passed to an extractor at a time, and where.
        on_progress: called with how many more images are done, also in parts.
        on_missing: called before with how many images this process has to do.

    Raises:
        ValueError: if features are not finite.
    """
    folders = {name: FeatureFolder(parent, describe(images, own), len(images)) for name, own in extractors.items()}
    rank, size = rank_and_size()
    with ExitStack() as locks:
        decided(lambda: begin(folders.values(), locks))
        some = next(iter(folders.values()))
        todo = {}
        for piece in range(rank, some.num_pieces, size):
            if missing := [name for name, folder in folders.items() if folder.read(piece) is None]:
                todo[piece] = missing
        on_missing(sum(len(some.indices(piece)) for piece in todo))
        for piece, missing in todo.items():
            found: dict[str, list[Tensor]] = {name: [] for name in missing}
            for batch in images.batches(some.indices(piece), batch_size, on_progress):
                for name in missing:
                    found[name].append(extractors[name](batch.to(device)).float().cpu())
            for name, parts in found.items():
                folders[name].write(piece, torch.cat(parts))
        wait_for_all()
    labels = images.labels(range(len(images)))
    sets = {}
    for name, folder in folders.items():
        features = folder.features()
        assert features is not None, "every piece has just been written or read"
        check_features(features, f"{name} features of the {what}")
        sets[name] = FeatureSet(features, labels, images.asked)
    return sets
