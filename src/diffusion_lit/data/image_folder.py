"""A folder of image files, as people have it."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import Images
from diffusion_lit.source.folder import FolderSource
from diffusion_lit.source.image_file import UNREADABLE, Reading, unreadable
from diffusion_lit.source.layout import check_val_fraction

__all__ = ["FolderImages", "ImageFolderData"]

log = logging.getLogger(__name__)


class FolderImages:
    """A split of a folder, whose files are read when they are fetched.

    Args:
        source: the folder.
        split: its name.
        reading: how each image is read.
    """

    def __init__(self, source: FolderSource, split: str, reading: Reading) -> None:
        self.source = source
        self.split = split
        self.reading = reading
        labels = torch.tensor([entry.label for entry in source.splits[split]])
        self.labels = None if source.class_names is None else labels

    def __len__(self) -> int:
        return len(self.source.splits[self.split])

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        images = torch.stack([self.source.read(self.split, i, self.reading) for i in indices])
        return images, None if self.labels is None else self.labels[indices]


class ImageFolderData(ImageDataModule):
    """All images below a folder, of any size, format and colour mode.

    What counts as an image, a class and a split is the same as for `python -m diffusion_lit.prepare`: folders `train`,
    `val` and `test` are splits, and a share of the files, chosen by a hash of each name, is set aside for those that
    are missing; folders in them are classes, unless a `labels.csv` or `metadata.jsonl` names these.

    Args:
        root: the folder.
        resolution: height and width of the images after scaling and centre-cropping.
        channels: 3 for colour, 1 for grey.
        val_fraction: share set aside for validation, and again for testing, where there are no split folders.
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.

    Raises:
        ValueError: if the folder is missing, has no images, mixes images with class folders, or holds files that
            are not images.
    """

    def __init__(
        self,
        root: str | None,
        resolution: int,
        channels: int = 3,
        val_fraction: float = 0.05,
        batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, augmentation)
        if root is None:
            raise ValueError("say where the images are: data.root=FOLDER")
        if not Path(root).is_dir():
            raise ValueError(f"data.root={root} is not a folder")
        check_val_fraction(val_fraction, "data.")
        self.reading = Reading(resolution, channels).check("data.")
        self.resolution = resolution
        self.channels = channels
        self.source = FolderSource(Path(root), val_fraction)
        self.class_names = self.source.class_names
        self.num_classes = None if self.class_names is None else len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.check_files()
        super().setup(stage)

    def check_files(self) -> None:
        """Open every file, so that what cannot be read is named before training starts (broken pixels when read).

        Raises:
            ValueError: if there are such files.
        """
        small, errors = 0, dict[str, Exception]()
        for split, entries in self.source.splits.items():
            for index, entry in enumerate(entries):
                try:
                    with self.reading.open(self.source.file(split, index, self.reading)) as image:
                        small += min(image.size) < self.resolution
                except UNREADABLE as error:
                    errors[str(self.source.root / entry.name)] = error
        if errors:
            raise ValueError(unreadable(errors))
        remarks = self.source.remarks()
        if small:
            remarks.append(f"{small} images are smaller than data.resolution={self.resolution} and will be enlarged")
        if self.process()[0] == 0:
            for remark in remarks:
                log.warning(remark)

    def load(self) -> dict[str, Images]:
        return {split: FolderImages(self.source, split, self.reading) for split in self.source.splits}

    def facts(self) -> dict[str, str]:
        return {"source": self.source.description}
