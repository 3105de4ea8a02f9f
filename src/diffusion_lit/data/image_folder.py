"""A folder of image files, as people have it."""

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.counted import counted
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import Images
from diffusion_lit.resolution import height_and_width, shortest
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import Reading, unreadable
from diffusion_lit.source.layout import check_val_fraction

__all__ = ["ImageFolderData"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FolderImages:
    """A split of a folder, whose files are read when they are fetched."""

    source: FolderSource
    split: str
    reading: Reading

    def __post_init__(self) -> None:
        labels = torch.tensor([entry.label for entry in self.source.splits[self.split]])
        self.labels = None if self.source.class_names is None else labels

    def __len__(self) -> int:
        return len(self.source.splits[self.split])

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        images = torch.stack([self.source.read(self.split, i, self.reading) for i in indices])
        return images, None if self.labels is None else self.labels[indices]


@dataclass(eq=False, repr=False)
class ImageFolderData(ImageDataModule):
    """All images below a folder, of any size, format and colour mode.

    What counts as an image, a class and a split is the same as for `python -m diffusion_lit.prepare`: folders `train`,
    `val` and `test` are splits, and a share of the files, chosen by a hash of each name, is set aside for those that
    are missing; folders in them are classes, unless a label file names these.

    Args:
        resolution: height and width that images are scaled and centre-cropped to; one number where they are alike.
        channels: 1 for grey, 2 for grey and alpha, 3 for colour, 4 for colour and alpha, or as many as all files have
            that are arrays (`.npy`, TIFF of any number of bands).
        val_fraction: share set aside for validation, and again for testing, where there are no split folders.

    Raises:
        ValueError: if the folder is missing, has no images, mixes images with class folders, or holds files that
            are not images.
    """

    root: str | None
    resolution: int | Sequence[int]
    channels: int = 3
    val_fraction: float = 0.05
    _: KW_ONLY
    batch_size: int = 32
    num_workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise ValueError("say where the images are: data.root=FOLDER")
        if not Path(self.root).is_dir():
            raise ValueError(f"data.root={self.root} is not a folder")
        check_val_fraction(self.val_fraction, "data.")
        self.resolution = shortest(*height_and_width(self.resolution, "data.resolution"))
        self.reading = Reading(self.resolution, self.channels).check("data.")
        self.source = FolderSource(Path(self.root), self.val_fraction)
        self.class_names = self.source.class_names

    def check_files(self) -> None:
        """Open every file, so that what cannot be read is named before training starts (broken pixels when read)."""
        small, errors, (height, width) = 0, dict[str, Exception](), self.sides
        for split, entries in self.source.splits.items():
            for index, entry in enumerate(entries):
                try:
                    size = self.reading.size_of(self.source.file(split, index, self.reading))
                    small += size[0] < width or size[1] < height
                except MemoryError:
                    raise
                except Exception as error:  # what is damaged raises anything
                    errors[str(self.source.root / entry.name)] = error
        if errors:
            raise ValueError(unreadable(errors))
        remarks = self.source.remarks()
        if small:
            is_smaller = f"{counted(small, 'image')} {'is' if small == 1 else 'are'} smaller"
            remarks.append(f"{is_smaller} than data.resolution={self.resolution} and will be enlarged")
        if self.process()[0] == 0:
            for remark in remarks:
                log.warning(remark)

    def load(self) -> dict[str, Images]:
        self.check_files()
        return {split: FolderImages(self.source, split, self.reading) for split in self.source.splits}

    def facts(self) -> dict[str, str]:
        return {"source": self.source.description}
