"""Handwritten digits that come with scikit-learn: nothing to download."""

from dataclasses import dataclass

import torch

from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages, Images

__all__ = ["DigitsData"]

SPLIT_SEED = 0  # the split is part of the dataset: it does not change with a run's seed


@dataclass(eq=False, repr=False)
class DigitsData(ImageDataModule):
    """1,797 digits, 8 x 8, 17 grey levels, 10 classes (Alpaydin & Kaynak 1998), split 1,437 / 180 / 180 by class."""

    resolution = 8
    channels = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.class_names = list("0123456789")

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
