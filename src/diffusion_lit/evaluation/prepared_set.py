"""A prepared set whose images are evaluated: those of all its splits, one after the other."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.data.prepared import path_of
from diffusion_lit.distributed.collective import decided
from diffusion_lit.prepared.manifest import MANIFEST, Manifest
from diffusion_lit.prepared.reader import REMEDY, PreparedImages
from diffusion_lit.prepared.shard import check_shard
from diffusion_lit.source.base import UNLABELLED

__all__ = ["PreparedSet"]


class PreparedSet:
    """Images by number, uint8 [C, H, W]. The first process alone checks the shards: all must open it together.

    Args:
        root: its folder, such as `sample format=shards` or `prepare` makes.
        option: the setting that names it.
        number: gives the numbers of its classes, by their names.

    Raises:
        FileNotFoundError: if a shard is missing.
        ValueError: if it is damaged, or holds latents.
    """

    def __init__(self, root: Path, option: str, number: Callable[[Sequence[str]], list[int]]) -> None:
        self.manifest = manifest = Manifest.load(root / MANIFEST)
        if manifest.latents is not None:
            raise ValueError(f"{option}={root} holds latents and no images: name those that they were prepared from")

        def check() -> None:
            for shard in manifest.shards:
                check_shard(path_of(root, shard), shard, True, REMEDY)

        decided(check)
        self.parts = [PreparedImages(manifest, split, partial(path_of, root), max_open=8) for split in manifest.splits]
        self.ends = list(accumulate(map(len, self.parts)))
        names = manifest.class_names
        self.numbers = None if names is None else torch.tensor([*number(names), UNLABELLED])  # which -1 is the last of

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a path is the folder of a prepared set."""
        return (path / MANIFEST).is_file()

    def __len__(self) -> int:
        return self.ends[-1]

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W], and their classes [B] or None; a ValueError if one is damaged."""
        images = torch.empty(len(indices), *self.manifest.shape, dtype=torch.uint8)
        labels = torch.empty(len(indices), dtype=torch.long)
        homes = [bisect_right(self.ends, index) for index in indices]
        for home in {*homes}:
            places = [i for i, other in enumerate(homes) if other == home]
            before = self.ends[home] - len(self.parts[home])
            images[places], known = self.parts[home].fetch([indices[i] - before for i in places])
            labels[places] = UNLABELLED if known is None else known
        return images, None if self.numbers is None else self.numbers[labels]
