"""What `python -m diffusion_lit.prepare` made, as training reads it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import Images
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Manifest
from diffusion_lit.prepared.reader import REMEDY, PreparedImages
from diffusion_lit.prepared.shard import ShardInfo, check_shard
from diffusion_lit.shell import command_line
from diffusion_lit.space import LatentSpace, PixelSpace, Space

__all__ = ["PreparedData"]


class PreparedData(ImageDataModule):
    """A prepared set in a folder of this machine's.

    Args:
        root: the folder.
        verify: compare the shards' checksums with the manifest before training: it reads the whole set once.
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.

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
    prepare = command_line("prepare", {"source": "FOLDER", "out": root, "resolution": 64})
    raise FileNotFoundError(
        f"data.root={root} has no {MANIFEST}: make a prepared set with {prepare}, or read images as they are with "
        "data=image_folder"
    )


def space_of(manifest: Manifest) -> Space:
    """What is stored."""
    latents = manifest.latents
    return (
        PixelSpace()
        if latents is None
        else LatentSpace(latents.autoencoder, latents.scale, latents.shift, latents.sha256)
    )
