"""Features of many images, computed in pieces that are kept: whatever ends the command, what is done stays."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.distributed.collective import decided, rank_and_size, wait_for_all
from diffusion_lit.evaluation.feature_folder import FeatureFolder
from diffusion_lit.evaluation.image_set import ImageSet
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.feature.degenerate import check_features
from diffusion_lit.metrics import FeatureSet

__all__ = ["extract"]


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
        found_all = {name: folder.features() for name, folder in folders.items()}
        wait_for_all()  # before other commands may remove them
    labels = images.labels(range(len(images)))
    sets = {}
    for name, features in found_all.items():
        assert features is not None, "every piece has just been written or read"
        check_features(features, f"{name} features of the {what}")
        sets[name] = FeatureSet(features, labels, images.asked)
    return sets
