"""What `python -m diffusion_lit.prepare` made, as training reads it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffusion_lit.command_line.shell import command_line
from diffusion_lit.counted import counted
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import Images
from diffusion_lit.prepared.manifest import MANIFEST, WORK, Manifest
from diffusion_lit.prepared.reader import REMEDY, PreparedImages
from diffusion_lit.prepared.shard import ShardInfo, check_shard
from diffusion_lit.space import LatentSpace
from diffusion_lit.terminal.progress import progress

__all__ = ["PreparedData"]


@dataclass(eq=False, repr=False)
class PreparedData(ImageDataModule):
    """A prepared set in a folder of this machine's.

    Args:
        root: the folder.
        verify: compare the shards' checksums with the manifest before training: it reads the whole set once.

    Raises:
        ValueError: if `root` is not given, or the manifest is damaged.
        FileNotFoundError: if there is no prepared set.
    """

    root: str | None
    verify: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise ValueError("say where the prepared set is: data.root=DIR")
        self.manifest = self.read_manifest()
        self.resolution = self.manifest.resolution
        self.channels = self.manifest.channels
        self.class_names = self.manifest.class_names
        if (latents := self.manifest.latents) is not None:
            if self.latents is not None:
                raise ValueError(
                    f"data.latents={self.latents} would encode what are latents already: data.root={self.root} was "
                    "prepared with latents=; leave data.latents out"
                )
            self.space = LatentSpace(latents.autoencoder, latents.scale, latents.shift, latents.sha256)
        self.max_open: int | None = None
        self.find: Callable[[ShardInfo], Path] = partial(path_of, Path(self.root))

    def read_manifest(self) -> Manifest:
        return Manifest.load(find_manifest(Path(str(self.root))))

    def check(self) -> None:
        """Compare every shard with the manifest."""
        shards = self.manifest.shards
        with ThreadPoolExecutor() as threads:
            checked = threads.map(lambda shard: check_shard(self.find(shard), shard, self.verify, REMEDY), shards)
            with progress("checking", len(shards), "shards", delay=2) as work:
                for _ in checked:
                    work.advance(1)

    def load(self) -> dict[str, Images]:
        if self.trainer is None or self.trainer.local_rank == 0:
            self.check()
        return {split: PreparedImages(self.manifest, split, self.find, self.max_open) for split in self.manifest.splits}

    def facts(self) -> dict[str, str]:
        m = self.manifest
        how = f"{m.fit}, {m.filter}" + ("" if m.latents is None else f", latents of {m.latents.autoencoder}")
        unreadable = f"{counted(m.num_unreadable, 'image')} left out" if m.num_unreadable else "none"
        return {"source": m.source, "made by": how, "unreadable": unreadable, "content hash": m.content_hash}

    def class_counts(self, split: str) -> list[int] | None:
        return self.manifest.splits[split].class_counts


def path_of(root: Path, shard: ShardInfo) -> Path:
    return root / shard.file


def find_manifest(root: Path) -> Path:
    """The manifest in a folder; a FileNotFoundError says how to make one."""
    path = root / MANIFEST
    if path.is_file():
        return path
    if (root / WORK).is_dir():
        raise FileNotFoundError(f"{root} is not prepared to the end: run the same diffusion_lit.prepare command again")
    holds_something = root.is_dir() and any(root.iterdir())  # most likely the images
    source, out = (root, "ANOTHER_FOLDER") if holds_something else ("FOLDER", root)
    prepare = command_line("prepare", {"source": source, "out": out, "resolution": 64})
    look = command_line("inspect", {"data": "image_folder", "data.root": source, "data.resolution": 64})
    raise FileNotFoundError(
        f"data.root={root} has no {MANIFEST}: make a prepared set with\n  {prepare}\nor read images as they are with "
        f"data=image_folder, as\n  {look}\nat the resolution that you need"
    )
