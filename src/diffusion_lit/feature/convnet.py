"""A small network that tells small images apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.feature.base import to_colour

MIN_RESOLUTION = 8  # it halves its input three times
RESOLUTION = 32
"""Larger images are shrunk to that."""
WIDTHS = (32, 64, 128)
WIDTH = WIDTHS[-1]
"""How many features its last layer reads."""
BATCH_SIZE = 64
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2


class ConvNet(nn.Module):
    """Three 3 x 3 convolutions, each with batch normalisation and ReLU, which halve the image; the mean over places; a
    linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.stages = nn.Sequential(
            *convolution(3, first, stride=2),
            *convolution(first, second),
            nn.MaxPool2d(2),
            *convolution(second, third),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.last = nn.Linear(WIDTH, num_classes)
        self.to(memory_format=torch.channels_last)  # a quarter faster on CPUs

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W], C = 1 or 3, not larger than `RESOLUTION` -> [B, 128]."""
        x = to_colour(images).float() / 127.5 - 1
        return self.stages(x.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images))


def convolution(channels: int, width: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def shrunk(images: Tensor) -> Tensor:
    """Bytes [B, C, H, W], of sides over `RESOLUTION` pixels averaged down to that (bilinear, antialiased)."""
    size = [min(side, RESOLUTION) for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images
    return F.interpolate(images.float(), size, mode="bilinear", antialias=True).round().to(torch.uint8)


def train(network: ConvNet, images: Tensor, labels: Tensor, num_images: int, generator: torch.Generator) -> None:
    """Minimise the cross entropy over `num_images` images, in a new order each time that all have been seen.

    Images are shifted by up to an eighth of their size, their border repeated; not flipped, for digits would not be
    the same. The learning rate rises and falls once (Smith & Topin 2017, arXiv:1708.07120).
    """
    orders = [torch.randperm(len(images), generator=generator) for _ in range(-(-num_images // len(images)))]
    batches = torch.cat(orders)[:num_images].tensor_split(-(-num_images // BATCH_SIZE))
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(batches))
    network.train()
    for indices in batches:
        loss = F.cross_entropy(network(shifted(images[indices], generator)), labels[indices])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lr_schedule.step()
    network.eval().requires_grad_(False)


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """All images of a batch, shifted alike."""
    height, width = images.shape[2:]
    most = max(height, width) // 8
    down, right = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    padded = F.pad(images.float(), (most, most, most, most), mode="replicate")
    return padded[:, :, down : down + height, right : right + width]
