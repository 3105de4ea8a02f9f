"""A network of one's own."""

import torch
from torch import Tensor, nn

from diffusion_lit.condition import Condition
from diffusion_lit.model import Network


class Mixer(Network):
    """ConvMixer (Trockman & Kolter 2022, arXiv:2201.09792), with the time and the class added in each block.

    Args:
        resolution, image_channels, num_classes: the data's, where the configuration says `auto`.
        channels: width.
        depth: number of blocks.
        kernel_size: of the convolutions that mix pixels.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        num_classes: int | None = None,
        channels: int = 64,
        depth: int = 4,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        self.image_shape = (image_channels, resolution, resolution)
        self.num_classes = num_classes
        self.channels = channels
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.embed_time = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.embed_label = None if num_classes is None else nn.Embedding(num_classes + 1, channels)
        self.mixers = nn.ModuleList(Block(channels, kernel_size) for _ in range(depth))
        self.last = nn.Conv2d(channels, image_channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        embedding = self.embed_time(waves(c_noise, self.channels))
        if self.embed_label is not None:
            label = condition.label
            unknown = torch.full_like(c_noise, -1, dtype=torch.long)
            embedding = embedding + self.embed_label((unknown if label is None else label) % (self.num_classes + 1))
        h = self.first(x)
        for mixer in self.mixers:
            h = mixer(h, embedding)
        return self.last(h)

    def blocks(self) -> nn.ModuleList:
        return self.mixers

    def class_parameters(self) -> list[str]:
        return [] if self.embed_label is None else ["embed_label.weight"]


class Block(nn.Module):
    """Mixes pixels, then channels."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.shift = nn.Linear(channels, channels)
        self.pixels = nn.Conv2d(channels, channels, kernel_size, padding="same", groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        shifted = self.norm(h) + self.shift(embedding)[:, :, None, None]
        return h + self.pointwise(nn.functional.gelu(self.pixels(shifted)))


def waves(c_noise: Tensor, channels: int) -> Tensor:
    """Sines and cosines of `c_noise` [B] at `channels` / 2 frequencies, [B, channels]."""
    frequencies = torch.exp(-9.2 * torch.linspace(0, 1, channels // 2, device=c_noise.device))
    angles = c_noise[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
