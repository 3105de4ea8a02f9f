"""Sets of images that tell which they are, as folders and prepared."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from diffusion_lit.data import ImageDataModule, ImageFolderData, MemmapData, StreamData
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading

SIZE = 4
KINDS = ("memmap", "image_folder", "stream", "remote")
PER_SHARD = 10


def write_folder(root: Path, num_train: int, num_held_out: int = 3, classes: int = 2) -> Path:
    """Folders train, val and test of colour images: image i has i, in base 256, in red at its upper left."""
    for split, count in (("train", num_train), ("val", num_held_out), ("test", num_held_out)):
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            pixels[0, :2, 0] = divmod(i, 256)
            path = root / split / f"class {i % classes}" / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def numbers(images: Tensor) -> list[int]:
    """Which images these are."""
    return (images[:, 0, 0, 0].int() * 256 + images[:, 0, 0, 1]).tolist()


def prepare(folder: Path, out: Path, per_shard: int = PER_SHARD, encoding: str = "raw") -> Path:
    """The images as they are, `per_shard` in each shard."""
    stored = {"raw": 3 * SIZE**2, "png": 3 * SIZE**2 // 2}[encoding] + 20
    maker = Maker(FolderSource(folder, 0.05), Reading(SIZE, 3, "center_crop", "lanczos", 10**6), encoding, None, out)
    build(maker, shard_bytes=per_shard * stored)
    return out


def settings(kind: str, root: Path) -> dict[str, Any]:
    """A set in `root`, which has a folder of images `folder` and the same prepared, `set`."""
    return {
        "memmap": {"root": str(root / "set")},
        "image_folder": {"root": str(root / "folder"), "resolution": SIZE},
        "stream": {"root": str(root / "set"), "num_lanes": 3},
        "remote": {"root": f"local:{root / 'set'}", "cache": str(root / "cache"), "num_lanes": 3},
    }[kind]


def data_module(kind: str, root: Path, rank: int = 0, world_size: int = 1, **options: Any) -> ImageDataModule:
    """As rank `rank` of `world_size` has it."""
    classes = {"memmap": MemmapData, "image_folder": ImageFolderData}
    data: ImageDataModule = classes.get(kind, StreamData)(**{"num_workers": 0, **settings(kind, root), **options})  # type: ignore[arg-type]
    data.process = lambda: (rank, world_size)  # type: ignore[method-assign]
    data.setup()
    return data
