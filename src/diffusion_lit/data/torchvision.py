"""MNIST, Fashion-MNIST and CIFAR-10, through torchvision."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages, Images
from diffusion_lit.data.order import split_order
from diffusion_lit.source.torchvision import open_dataset

__all__ = ["TorchvisionData"]

NATIVE = {"MNIST": (28, 1), "FashionMNIST": (28, 1), "CIFAR10": (32, 3)}  # resolution and channels
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"  # which torchvision reads with the images


class TorchvisionData(ImageDataModule):
    """One of torchvision's small labelled datasets; validation images are set aside from its training split.

    Args:
        dataset: `MNIST`, `FashionMNIST` or `CIFAR10`.
        root: the folder that torchvision keeps its datasets in.
        resolution: the native one, or more: images are padded evenly with black, as 28 to 32 is for networks that
            halve the image often.
        download: fetch what is not there.
        val_fraction: share of the training split set aside for validation.
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.

    Raises:
        ValueError: if the dataset is not one of these, or the resolution or the fraction does not fit.
    """

    num_classes = 10

    def __init__(
        self,
        dataset: str,
        root: str,
        resolution: int,
        download: bool = True,
        val_fraction: float = 0.05,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        import torchvision.datasets

        super().__init__(batch_size, num_workers, seed, augmentation)
        if dataset not in NATIVE:
            raise ValueError(f"data.dataset must be one of {', '.join(NATIVE)}, got {dataset!r}")
        native, self.channels = NATIVE[dataset]
        if resolution < native or (resolution - native) % 2:
            raise ValueError(
                f"{dataset} images are {native} x {native} and can only be padded evenly; data.resolution={resolution} "
                f"does not fit, {native} and {native + 4} do"
            )
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}")
        self.dataset = dataset
        self.class_names = list(getattr(getattr(torchvision.datasets, dataset), "classes", CIFAR10.split()))
        self.root = Path(root)
        self.resolution = resolution
        self.padding = (resolution - native) // 2
        self.download = download
        self.val_fraction = val_fraction

    def prepare_data(self) -> None:
        if self.download:
            self.read(train=True, download=True)
            self.read(train=False, download=True)

    def load(self) -> dict[str, Images]:
        images, labels = self.read(train=True)
        order = split_order(len(images))
        val, train = order.tensor_split([round(len(images) * self.val_fraction)])
        return {
            "train": ArrayImages(images[train], labels[train]),
            "val": ArrayImages(images[val], labels[val]),
            "test": ArrayImages(*self.read(train=False)),
        }

    def read(self, train: bool, download: bool = False) -> tuple[Tensor, Tensor]:
        """All images of torchvision's split, uint8 [N, C, H, W], and their labels [N]."""
        data = open_dataset(self.dataset, self.root, download, "data.", train=train)
        pixels = torch.as_tensor(data.data)
        images = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
        return F.pad(images, [self.padding] * 4).contiguous(), torch.as_tensor(data.targets)
