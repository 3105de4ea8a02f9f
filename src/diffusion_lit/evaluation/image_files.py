"""Images that somebody has: a folder, a ZIP or tar file, an .npz, a prepared set, of one size and taken as they are."""

import logging
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.drawn.folder import RECORD
from diffusion_lit.evaluation.class_names import ClassNames
from diffusion_lit.evaluation.image_array import NpzImages
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.evaluation.prepared_set import PreparedSet
from diffusion_lit.generate import Models
from diffusion_lit.resolution import shortest
from diffusion_lit.source.archive import TarSource, ZipSource
from diffusion_lit.source.bands import open_bands
from diffusion_lit.source.base import UNLABELLED, FileSource
from diffusion_lit.source.folder import FolderSource, stamp_of
from diffusion_lit.source.image_file import Reading, unreadable
from diffusion_lit.source.orientation import upright_size

__all__ = ["channels_of", "open_images"]

log = logging.getLogger(__name__)

COLOURS = {1: "grey", 3: "in colour"}
SHARE = 0.1  # which split an image would be in does not matter here
SETS = {"samples": "generated", "against": "real", "training": "training"}
"""What the images of a setting are."""
KINDS = "a folder of images, a .zip or .tar of them, an .npz with arr_0 [N, H, W, C], or a prepared set"


def open_images(path: str | Path, option: str, classes: ClassNames, channels: int | None = None) -> StoredImages:
    """All images of a file or folder, of all splits, without scaling or cutting any.

    An .npz has `arr_0`, uint8 [N, H, W, C], and maybe `arr_1`, classes int64 [N], as ADM's evaluation writes it.

    Args:
        path: of the file or folder.
        option: the setting that names it: `samples`, `against` or `training`.
        classes: the numbers of classes that have names, which the folder's names are added to.
        channels: as of a `Reading`; None takes grey or colour as it is, with transparency laid on white.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if there are no images, one cannot be read, or they are not all of one size and colour.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{option}={path} does not exist; it should be {KINDS}")
    path = images_within(path)
    named: dict[str, Any] = {"files": str(path.resolve())}
    if path.suffix == ".npz":
        array = NpzImages(path, f"{option}={path}")
        if array.has_statistics and option == "against" and rank_and_size()[0] == 0:
            log.warning(
                "%s has statistics too, mu and sigma, which may be of more images than are in it: published FIDs "
                "against it are against these, metrics.fid.reference=%s",
                *(path, path),
            )
        if array.labels is not None:
            classes.numbered.append(SETS[option])
        return StoredImages(array, named | {"formats": {"npz": len(array)}})
    if PreparedSet.is_one(path):
        prepared = PreparedSet(path, option, partial(classes.numbers, kind=SETS[option]))
        return StoredImages(prepared, named | {"formats": {prepared.manifest.encoding: len(prepared)}})
    source = open_source(path, option)
    names = source.class_names
    numbers = None if names is None else classes.numbers(names, SETS[option], source.numbered)
    files = SameSizeImages.of(source, numbers, channels)
    return StoredImages(files, named | {"formats": files.formats})


def images_within(path: Path) -> Path:
    """Of a folder that `sample` has written to, the place of all images, beside which a grid of them may lie."""
    places = [path / name for name in ("png", "npy", "samples.npz", "samples.zip", "shards")]
    return next((place for place in places if place.exists()), path) if (path / RECORD).is_file() else path


def channels_of(cfg: DictConfig, models: Models | None) -> int | None:
    """How many channels files are read with: what is set, or a model's that draws neither grey nor colour."""
    if cfg.channels is not None or models is None:
        return cfg.channels
    denoiser = models.denoiser
    own = denoiser.space.image_channels(denoiser.image_shape[0])
    return None if own in (1, 3) else own


def open_source(path: Path, option: str) -> FileSource:
    if path.is_dir():
        return FolderSource(path, SHARE)
    if zipfile.is_zipfile(path):
        return ZipSource(path, SHARE)
    if path.suffix == ".tar":
        return TarSource(path, SHARE)
    raise ValueError(f"{option}={path} is none of these: {KINDS}")


@dataclass(eq=False)
class SameSizeImages:
    """The images of a source, in the order of their names, whatever split they would be in."""

    source: FileSource
    places: list[tuple[str, int]]
    """The split and the number there of each."""
    reading: Reading
    formats: dict[str, int]
    """How many there are of each file format: JPEG's losses are no model's."""
    numbers: list[int] | None
    """The number of each class of the source; None without classes."""

    @classmethod
    def of(cls, source: FileSource, numbers: list[int] | None, channels: int | None) -> "SameSizeImages":
        """Look at all headers; a ValueError if one cannot be read, or they differ in size or colour."""
        named = [(entry.name, split, i) for split, found in source.splits.items() for i, entry in enumerate(found)]
        anyhow = Reading(1, channels or 3)
        seen: dict[tuple[int, int, int], str] = {}
        broken: dict[str, Exception] = {}
        formats: Counter[str] = Counter()
        for name, split, i in sorted(named):
            try:
                facts, kind = look(source.file(split, i, anyhow), anyhow, channels)
                seen.setdefault(facts, name)
                formats[kind] += 1
            except MemoryError:
                raise
            except Exception as error:  # what is damaged raises anything
                broken[f"{name} of {source.description}"] = error
        if broken:
            raise ValueError(unreadable(broken))
        if len(seen) > 1:
            (one, first), (other, second) = list(seen.items())[:2]
            remedy = "scale all of them alike first, as diffusion_lit.prepare does"
            if one[:2] == other[:2] and {one[2], other[2]} == {*COLOURS}:
                remedy = "channels=3 reads all of them in colour, channels=1 in grey"
            raise ValueError(
                f"{source.description} mixes images: {first} is {worded(one)}, {second} is {worded(other)}. Figures "
                f"are of images of one size and colour; {remedy}"
            )
        [(width, height, found)] = seen
        places = [(split, i) for _, split, i in sorted(named)]
        return cls(source, places, Reading(shortest(height, width), found, "as_is"), dict(formats), numbers)

    def __len__(self) -> int:
        return len(self.places)

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        places = [self.places[i] for i in indices]
        images = torch.stack([self.read(split, i) for split, i in places])
        if self.numbers is None:
            return images, None
        labels = [self.source.splits[split][i].label for split, i in places]
        return images, torch.tensor([c if c == UNLABELLED else self.numbers[c] for c in labels])

    def read(self, split: str, index: int) -> Tensor:
        """An image; a ValueError if it has changed: its features would be kept as those of what it was."""
        file = self.source.file(split, index, self.reading)
        if isinstance(file, Path) and stamp_of(file) != self.source.splits[split][index].stamp:
            raise ValueError(
                f"{file} was changed or removed in the meantime: leave images alone while they are evaluated"
            )
        return self.source.read(split, index, self.reading)


def look(file: Path | BinaryIO, anyhow: Reading, channels: int | None) -> tuple[tuple[int, int, int], str]:
    """Width, height and channels of an image once it is upright, and its format, undecoded; any error if it is none."""
    if (bands := open_bands(file, channels, anyhow.max_pixels)) is not None:
        return (*bands.size, bands.channels), bands.format
    with anyhow.open(file) as image:
        own = 1 if Image.getmodebase(image.mode) == "L" else 3
        return (*upright_size(image), channels or own), str(image.format).lower()


def worded(size: Any) -> str:
    width, height, channels = size
    return f"{width} x {height} {COLOURS.get(channels, f'of {channels} channels')}"
