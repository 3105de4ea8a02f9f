"""What `python -m diffusion_lit.prepare` made, as training reads it."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule, Images
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Manifest
from diffusion_lit.prepared.shard import Shard, ShardInfo, check_shard
from diffusion_lit.space import PIXELS

__all__ = ["PreparedData", "PreparedImages"]

REMEDY = "copy it again, or prepare the set again"


class PreparedImages:
    """A split of a prepared set: shards that are mapped into memory when they are first read.

    Args:
        manifest: of the set.
        split: its name.
        find: where a shard is, on this machine.
        max_open: shards that are kept mapped at a time; None is all.
    """

    def __init__(
        self, manifest: Manifest, split: str, find: Callable[[ShardInfo], Path], max_open: int | None = None
    ) -> None:
        self.manifest = manifest
        self.shards = manifest.splits[split].shards
        self.ends = np.cumsum([shard.count for shard in self.shards])
        self.find = find
        self.max_open = max_open
        self.opened: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"opened": OrderedDict()}  # a worker process maps shards itself

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        """Images uint8, or latents float16, [B, C, H, W], and their classes."""
        wanted = np.asarray(indices)
        homes = np.searchsorted(self.ends, wanted, side="right")
        shape = (len(wanted), self.manifest.channels, self.manifest.resolution, self.manifest.resolution)
        images = np.empty(shape, np.uint8 if self.manifest.latents is None else np.float16)
        labels = np.empty(len(wanted), np.int64)
        for home in np.unique(homes):
            [places] = np.nonzero(homes == home)
            shard = self.shard(int(home))
            inside = wanted[places] - (self.ends[home] - self.shards[home].count)
            labels[places] = shard.labels(inside)
            if self.manifest.encoding == "raw":
                images[places] = shard.raw(inside).view(images.dtype).reshape(-1, *shape[1:])
            else:
                for place, index in zip(places, inside, strict=True):
                    images[place] = self.decode(shard.encoded(int(index)), int(home))
        return torch.from_numpy(images), torch.from_numpy(labels) if self.manifest.class_names else None

    def decode(self, file: np.ndarray, home: int) -> Tensor:
        from torchvision.io import ImageReadMode, decode_image

        mode = ImageReadMode.GRAY if self.manifest.channels == 1 else ImageReadMode.RGB
        try:
            return decode_image(torch.from_numpy(np.array(file)), mode)
        except RuntimeError as error:
            raise ValueError(f"shard {self.shards[home].file} is damaged ({error}); {REMEDY}") from error

    def shard(self, number: int) -> Shard:
        if number in self.opened:
            self.opened.move_to_end(number)
        else:
            self.opened[number] = self.open(self.shards[number])
            if self.max_open is not None and len(self.opened) > self.max_open:
                self.opened.popitem(last=False)
        return self.opened[number]

    def open(self, info: ShardInfo) -> Shard:
        path = self.find(info)
        try:
            return Shard(path, info, self.manifest.item_bytes)
        except FileNotFoundError:  # another process may have made room in the cache in between
            path = self.find(info)
        check_shard(path, info, False, REMEDY)
        return Shard(path, info, self.manifest.item_bytes)


class PreparedData(ImageDataModule):
    """A prepared set in a folder of this machine's.

    Args:
        root: the folder.
        verify: compare the shards' checksums with the manifest before training: it reads the whole set once.
        batch_size: images a process and step.
        num_workers: loading processes beside each training process.
        seed: of the order and the augmentation.
        augmentation: of training images; None is none.

    Raises:
        ValueError: if `root` is not given, or the manifest is damaged.
        FileNotFoundError: if there is no prepared set.
    """

    def __init__(
        self,
        root: str | None,
        verify: bool = True,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, augmentation)
        if root is None:
            raise ValueError("say where the prepared set is: data.root=DIR")
        self.root = root
        self.verify = verify
        self.manifest = self.read_manifest()
        self.resolution = self.manifest.resolution
        self.channels = self.manifest.channels
        self.class_names = self.manifest.class_names
        self.num_classes = len(self.class_names) if self.class_names else None
        self.space = space_of(self.manifest)
        self.find: Callable[[ShardInfo], Path] = partial(path_of, Path(root))

    def read_manifest(self) -> Manifest:
        return Manifest.load(find_manifest(Path(self.root)))

    def setup(self, stage: str | None = None) -> None:
        if not self.splits and (self.trainer is None or self.trainer.local_rank == 0):
            self.check()
        super().setup(stage)

    def check(self) -> None:
        """Compare every shard with the manifest.

        Raises:
            FileNotFoundError: if one is missing.
            ValueError: if one is truncated or damaged.
        """
        shards = [shard for split in self.manifest.splits.values() for shard in split.shards]
        with (
            ThreadPoolExecutor() as threads,
            tqdm(total=len(shards), desc="checking shards", unit="shard", leave=False, delay=2) as bar,
        ):
            for _ in threads.map(self.check_shard, shards):
                bar.update()

    def check_shard(self, shard: ShardInfo) -> None:
        check_shard(self.find(shard), shard, self.verify, REMEDY)

    def load(self) -> dict[str, Images]:
        return {split: PreparedImages(self.manifest, split, self.find) for split in self.manifest.splits}

    def facts(self) -> dict[str, str]:
        m = self.manifest
        how = f"{m.fit}, {m.filter}" + ("" if m.latents is None else f", latents of {m.latents.autoencoder}")
        unreadable = f"{m.num_unreadable} images left out" if m.num_unreadable else "none"
        return {"source": m.source, "made by": how, "unreadable": unreadable, "content hash": m.content_hash}

    def class_counts(self, split: str) -> list[int] | None:
        return self.manifest.splits[split].class_counts


def path_of(root: Path, shard: ShardInfo) -> Path:
    return root / shard.file


def find_manifest(root: Path) -> Path:
    """The manifest in a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = root / MANIFEST
    if path.is_file():
        return path
    if (root / WORK).is_dir():
        raise FileNotFoundError(f"{root} is not prepared to the end: run the same diffusion_lit.prepare command again")
    raise FileNotFoundError(
        f"data.root={root} has no {MANIFEST}: make a prepared set with python -m diffusion_lit.prepare source=FOLDER "
        f"out={root} resolution=64, or read images as they are with data=image_folder"
    )


def space_of(manifest: Manifest) -> Mapping[str, Any]:
    """What is stored, as a configuration."""
    latents = manifest.latents
    if latents is None:
        return PIXELS
    return {
        "_target_": "diffusion_lit.space.LatentSpace",
        "autoencoder": latents.autoencoder,
        "scale": latents.scale,
        "shift": latents.shift,
        "sha256": latents.sha256,
    }
