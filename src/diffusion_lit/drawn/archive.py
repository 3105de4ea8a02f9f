"""Drawn images in one file, or in the shards that training reads, put together from single files."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from diffusion_lit.files import replacing
from diffusion_lit.picture.image import read_image
from diffusion_lit.preparation.build import build
from diffusion_lit.preparation.maker import Maker, encoding_for
from diffusion_lit.prepared.manifest import Manifest
from diffusion_lit.resolution import shortest
from diffusion_lit.source.base import UNLABELLED, TableSource
from diffusion_lit.source.image_file import Reading

__all__ = ["save_shards", "save_zip"]

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same images are the same archive, whenever it is made
VAL_FRACTION = 0.05


def save_zip(files: Sequence[Path], indices: Sequence[int], labels: Sequence[int] | None, path: Path) -> None:
    """Write PNG files as EDM's `dataset_tool.py` does, for its `fid.py` and training (arXiv:2206.00364).

    Image i is `00000/img00000000.png`, in folders of 1,000 by its first five of eight digits; `dataset.json` has
    `{"labels": [[name, class], ...]}`, or null without classes.
    """
    names = [f"{i:08d}"[:5] + f"/img{i:08d}.png" for i in indices]
    listed = None if labels is None else [[name, label] for name, label in zip(names, labels, strict=True)]
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, image in zip(names, files, strict=True):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), image.read_bytes())
        archive.writestr(zipfile.ZipInfo("dataset.json", EPOCH), json.dumps({"labels": listed}))


class DrawnImages(TableSource):
    """Files of images of one size, as `save_image` writes them, and their classes, as `prepare` takes them."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int] | None, class_names: list[str] | None) -> None:
        self.description, self.class_names, self.files = "drawn images", class_names, files
        stamp = hashlib.sha256()
        for file in files:
            stamp.update(file.read_bytes())
        classes = [UNLABELLED] * len(files) if labels is None else labels
        self.share_out({"train": classes}, VAL_FRACTION, {"train": stamp.hexdigest()})

    def read(self, split: str, index: int, reading: Reading) -> Tensor:
        return read_image(self.files[self.places[split][index][1]])


def save_shards(
    files: Sequence[Path], labels: Sequence[int] | None, class_names: list[str] | None, out: Path
) -> Manifest:
    """Prepare files of one size in the folder `out`, as `python -m diffusion_lit.prepare` would.

    Args:
        files: the images.
        labels: their classes, or None.
        class_names: of all classes, by number; None without classes.
        out: the folder, which `data=memmap` and `data=stream` read; what was prepared there before is replaced.
    """
    channels, height, width = read_image(files[0]).shape
    reading = Reading(shortest(height, width), channels)
    maker = Maker(DrawnImages(files, labels, class_names), reading, encoding_for(reading), None, out)
    return build(maker, overwrite=True)
