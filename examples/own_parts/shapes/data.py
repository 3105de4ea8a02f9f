"""A data set of one's own: three splits of bytes and classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.data import ArrayImages, ImageDataModule, Images


@dataclass(eq=False, repr=False)
class ShapesData(ImageDataModule):
    """White shapes on black, 16 x 16, each of another size at another place.

    Args:
        num_images: training images; a tenth as many to validate and to test.

    Raises:
        ValueError: if there are fewer than 10.
    """

    resolution = 16
    channels = 1

    num_images: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_images < 10:
            raise ValueError(f"data.num_images must be at least 10, got {self.num_images}")
        self.class_names = ["disc", "square", "triangle"]

    def load(self) -> dict[str, Images]:
        tenth = self.num_images // 10
        counts = {"train": self.num_images, "val": tenth, "test": tenth}
        return {split: ArrayImages(*draw(count, seed)) for seed, (split, count) in enumerate(counts.items())}


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images, uint8 [N, 1, 16, 16], and their classes, int64 [N]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    radius = 2.5 + 2.5 * torch.rand(count, 1, 1, generator=generator)
    x_0, y_0 = 5 + 5 * torch.rand(2, count, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    x, y = (x - x_0) / radius, (y - y_0) / radius  # in a shape's own coordinates, which lies in [-1, 1]
    disc, square = torch.hypot(x, y), torch.maximum(x.abs(), y.abs())
    triangle = torch.maximum(y, 2 * x.abs() - y)
    distance = torch.stack([disc, square, triangle])[labels, torch.arange(count)]
    inside = ((1 - distance) * radius + 0.5).clamp(0, 1)  # a pixel's share at the edge
    return (255 * inside).round().to(torch.uint8)[:, None], labels
