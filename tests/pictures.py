"""Folders and archives of small pictures, and prepared sets of them."""

import io
import math
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker
from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.prepared.reader import PreparedImages
from diffusion_lit.source.base import Source
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading

SIZE = (12, 9)


def pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise, uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def png(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(file, "png")
    return file.getvalue()


def solid(path: Path, value: int | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Write an image of one grey level, or colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)
    return path


def huge_png(width: int, height: int) -> bytes:
    """A header that claims so many pixels, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def rotated_jpeg(tags: Mapping[int, tuple[int, int]], size: tuple[int, int] = SIZE) -> bytes:
    """Solid grey, with EXIF data that say orientation 6 and of each further tag its type and its value."""
    entries = sorted({274: (3, 6), **tags}.items())
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    file = io.BytesIO()
    Image.new("L", size, 100).save(file, "jpeg", exif=exif)
    return file.getvalue()


def named(count: int = 24, classes: Iterable[str] = ("cat", "dog", "emu")) -> dict[str, bytes]:
    """Files in class folders, by name."""
    kinds = list(classes)
    return {f"{kinds[i % len(kinds)]}/{i:03d}.png": png(i) for i in range(count)}


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w", **member: Any) -> Path:
    """An archive; `member` are attributes of every member."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in member.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


@cache
def defaults() -> DictConfig:
    """conf/prepare.yaml."""
    cfg = OmegaConf.load(CONFIG_FOLDER / "prepare.yaml")
    assert isinstance(cfg, DictConfig)
    return cfg


def settings(**changed: Any) -> DictConfig:
    """conf/prepare.yaml, changed."""
    cfg = deepcopy(defaults())
    cfg.update({"out": "nowhere", "resolution": 8, "val_fraction": 0.2} | changed)
    return cfg


def reading(resolution: int | list[int] = 8, **changed: Any) -> Reading:
    options = {"channels": 3, "fit": "center_crop", "filter": "lanczos", "max_pixels": 10**6} | changed
    return Reading(resolution, **options)


def prepare(source: Source | Path, out: Path, encoding: str = "raw", shard_images: int = 5, **options: Any) -> Manifest:
    """A prepared set with shards of so many raw images; `options` are of the reading, and of `build`."""
    if isinstance(source, Path):
        source = FolderSource(source, 0.2)
    building = {key: options.pop(key) for key in ("workers", "max_unreadable", "overwrite") if key in options}
    read = reading(**options)
    raw = read.channels * math.prod(read.sides)
    stored = {"raw": raw, "png": raw // 2, "jpeg": raw // 6}[encoding] + 20
    return build(Maker(source, read, encoding, None, out), shard_bytes=shard_images * stored, **building)


def stored(out: Path, split: str) -> tuple[np.ndarray, list[int] | None]:
    """Every image of a split, uint8 [N, C, H, W], and its class."""
    images = PreparedImages(Manifest.load(out / "manifest.json"), split, lambda shard: out / shard.file)
    found, labels = images.fetch(list(range(len(images))))
    return found.numpy(), None if labels is None else labels.tolist()


def tree(folder: Path) -> dict[str, bytes | str]:
    """What is below a folder: each file with its content, each link with its target."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        else:
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else "folder"
    return found
