"""MNIST, Fashion-MNIST and CIFAR-10, through torchvision."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages, Images
from diffusion_lit.data.order import split_order
from diffusion_lit.resolution import height_and_width, shortest
from diffusion_lit.source.torchvision import open_dataset

__all__ = ["TorchvisionData"]

NATIVE = {"MNIST": (28, 1), "FashionMNIST": (28, 1), "CIFAR10": (32, 3)}  # resolution and channels
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"  # which torchvision reads with the images


@dataclass(eq=False, repr=False)
class TorchvisionData(ImageDataModule):
    """One of torchvision's small labelled datasets; validation images are set aside from its training split.

    Args:
        dataset: `MNIST`, `FashionMNIST` or `CIFAR10`.
        root: the folder that torchvision keeps its datasets in.
        resolution: the native one, or more, one number or [height, width]: images are padded evenly with black, as 28
            to 32 is for networks that halve the image often.
        download: fetch what is not there.
        val_fraction: share of the training split set aside for validation.

    Raises:
        ValueError: if the dataset is not one of these, or the resolution or the fraction does not fit.
    """

    dataset: str
    root: str
    resolution: int | Sequence[int]
    download: bool = True
    val_fraction: float = 0.05
    _: KW_ONLY
    batch_size: int = 128

    def __post_init__(self) -> None:
        import torchvision.datasets

        super().__post_init__()
        if self.dataset not in NATIVE:
            raise ValueError(f"data.dataset must be one of {', '.join(NATIVE)}, got {self.dataset!r}")
        native, self.channels = NATIVE[self.dataset]
        self.resolution = shortest(*height_and_width(self.resolution, "data.resolution"))
        added = [side - native for side in self.sides]
        if min(added) < 0 or any(more % 2 for more in added):
            raise ValueError(
                f"{self.dataset} images are {native} x {native} and can only be padded evenly; "
                f"data.resolution={self.resolution} does not fit, {native} and {native + 4} do"
            )
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, got {self.val_fraction}")
        self.class_names = list(getattr(getattr(torchvision.datasets, self.dataset), "classes", CIFAR10.split()))

    def prepare_data(self) -> None:
        if self.download:
            self.read(train=True, download=True)
            self.read(train=False, download=True)

    def load(self) -> dict[str, Images]:
        images, labels = self.read(train=True)
        order = split_order(len(images))
        val, train = order.tensor_split([round(len(images) * self.val_fraction)])
        parts = {"train": (images[train], labels[train]), "val": (images[val], labels[val]), "test": self.read(False)}
        return {split: ArrayImages(*part) for split, part in parts.items()}

    def read(self, train: bool, download: bool = False) -> tuple[Tensor, Tensor]:
        """All images of torchvision's split, uint8 [N, C, H, W], and their labels [N]."""
        data = open_dataset(self.dataset, Path(self.root), download, "data.", train=train)
        pixels = torch.as_tensor(data.data)
        images = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
        above, left = ((side - size) // 2 for side, size in zip(self.sides, images.shape[2:], strict=True))
        return F.pad(images, [left, left, above, above]).contiguous(), torch.as_tensor(data.targets)
