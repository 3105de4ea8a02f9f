"""A folder of image files, as people have it."""

import logging
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule, Images
from diffusion_lit.source.image_file import UNREADABLE, Reading, unreadable
from diffusion_lit.source.layout import EXTENSIONS, SPLITS, arrange, check_val_fraction, walk

__all__ = ["FolderImages", "ImageFolderData"]

log = logging.getLogger(__name__)


class FolderImages:
    """Image files, read when they are fetched.

    Args:
        paths: the files.
        labels: each file's class, or None.
        reading: of each.
    """

    def __init__(self, paths: list[Path], labels: list[int] | None, reading: Reading) -> None:
        self.paths = paths
        self.labels = None if labels is None else torch.tensor(labels)
        self.reading = reading

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        images = torch.stack([self.reading.read(self.paths[i]) for i in indices])
        return images, None if self.labels is None else self.labels[indices]


class ImageFolderData(ImageDataModule):
    """All images below a folder, of any size, format and colour mode.

    Where the images lie in subfolders, the first subfolder's name is the class; where they lie in the folder itself,
    there are none. Folders `train`, `val` and `test` are taken as the splits; without them a fixed share of the
    files, chosen by a hash of each name, is set aside for validation and as much for testing.

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
        self.root = Path(root)
        self.resolution = resolution
        self.channels = channels
        self.val_fraction = val_fraction
        self.files = self.find()
        classes = sorted({name for files in self.files.values() for _, name in files if name is not None})
        self.class_names = classes or None
        self.num_classes = len(classes) or None

    def find(self) -> dict[str, list[tuple[Path, str | None]]]:
        """The files of each split, each with the name of its class."""
        found = (path for path in walk(self.root) if path.suffix.lower() in EXTENSIONS)
        names = [path.relative_to(self.root).as_posix() for path in found]
        top = {name.partition("/")[0] for name in names}
        if "train" in top and (missing := [split for split in SPLITS if split not in top]):
            raise ValueError(f"{self.root} has a folder train, but none with images named {' and '.join(missing)}")
        arranged = arrange(names, str(self.root), self.val_fraction)
        return {split: [(self.root / name, label) for name, label in files] for split, files in arranged.items()}

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.check_headers()
        super().setup(stage)

    def check_headers(self) -> None:
        """Open every file, so that what is no image is named before training starts (broken pixels show when read)."""
        broken, small, error = [], 0, Exception()
        for path, _ in (file for files in self.files.values() for file in files):
            try:
                with Image.open(path) as image:
                    small += min(image.size) < self.resolution
            except UNREADABLE as caught:
                broken.append(str(path))
                error = caught
        if broken:
            raise ValueError(unreadable(broken, error))
        if small:
            log.warning("%d images are smaller than data.resolution=%d and will be enlarged", small, self.resolution)

    def load(self) -> dict[str, Images]:
        index = {name: i for i, name in enumerate(self.class_names or [])}
        return {
            split: FolderImages(
                [path for path, _ in files],
                [index[name] for _, name in files if name is not None] if index else None,
                self.reading,
            )
            for split, files in self.files.items()
        }
