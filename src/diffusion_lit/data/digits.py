"""Handwritten digits that come with scikit-learn: nothing to download."""

import torch

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages, Images

__all__ = ["DigitsData"]

SPLIT_SEED = 0  # the split is part of the dataset: it does not change with a run's seed


class DigitsData(ImageDataModule):
    """1,797 digits, 8 x 8, 17 grey levels, 10 classes (Alpaydin & Kaynak 1998), split 1,437 / 180 / 180 by class.

    Args:
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.
    """

    resolution = 8
    channels = 1
    num_classes = 10

    def __init__(
        self, batch_size: int = 64, num_workers: int = 0, seed: int = 0, augmentation: Augmentation | None = None
    ) -> None:
        super().__init__(batch_size, num_workers, seed, augmentation)
        self.class_names = [str(digit) for digit in range(10)]

    def load(self) -> dict[str, Images]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        train, held_out = train_test_split(range(len(images)), test_size=360, stratify=labels, random_state=SPLIT_SEED)
        val, test = train_test_split(held_out, test_size=180, stratify=labels[held_out], random_state=SPLIT_SEED)
        splits = {"train": train, "val": val, "test": test}
        return {name: ArrayImages(images[indices], labels[indices]) for name, indices in splits.items()}
