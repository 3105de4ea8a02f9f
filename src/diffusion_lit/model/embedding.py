"""Embeddings of what a network is conditioned on, time, class and augmentation, and of where each patch lies."""

import math

import torch
from torch import Tensor, nn

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.fixed_precision import FixedPrecision
from diffusion_lit.position import sin_cos_positions


class TimeEmbedding(FixedPrecision):
    """Sines and cosines of c_noise, then two dense layers (Ho et al. 2020, appendix B).

    Frequency i of n is 10,000^(-i / (n - frequency_shift)). The angle, up to a thousand radians, is float32 whatever
    the precision of the layers.

    Args:
        channels: n sines and n cosines together; must be even.
        out_channels: width of both dense layers.
        scale: factor of c_noise; 1000 / T makes the steps of any chain end at a thousand.
        frequency_shift: 1 makes the lowest frequency 1 / 10,000 itself, as in the code of DDPM.
        cosine_first: cosines before sines, as in the code of Improved DDPM.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int,
        out_channels: int,
        scale: float = 1.0,
        frequency_shift: float = 0.0,
        cosine_first: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.cosine_first = scale, cosine_first
        half = channels // 2
        exponents = -math.log(10_000) * torch.arange(half, dtype=torch.float32) / (half - frequency_shift)
        self.register_buffer("frequencies", torch.exp(exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels, out_channels), nn.SiLU(), nn.Linear(out_channels, out_channels))

    def forward(self, c_noise: Tensor) -> Tensor:  # [B] -> [B, out_channels]
        angle = (self.scale * c_noise.float())[:, None] * self.frequencies
        waves = [angle.cos(), angle.sin()] if self.cosine_first else [angle.sin(), angle.cos()]
        return self.layers(torch.cat(waves, dim=1).to(next(self.layers.parameters()).dtype))


def add_condition(
    emb: Tensor,
    condition: Condition,
    label: nn.Embedding | None,
    augmentation: nn.Linear | None,
    null_class: bool = True,
) -> Tensor:
    """The time's embedding [B, E] and, of what is known beside it, what the network has a layer for.

    The last row of `label` is that of `NO_CLASS`; with `null_class=False` it is missing, and labels are required (or
    ValueError). Without a bias, `augmentation` has no effect on an image left as it is.
    """
    if label is not None:
        index = condition.label
        if index is None:
            if not null_class:
                raise ValueError("without a null_class the network needs to know each image's class: give labels")
            index = torch.full((len(emb),), NO_CLASS, device=emb.device)
        emb = emb + label(index.where(index != NO_CLASS, label.num_embeddings - 1) if null_class else index)
    if augmentation is not None and condition.augment_label is not None:
        emb = emb + augmentation(condition.augment_label.to(augmentation.weight.dtype))
    return emb


class Positions(FixedPrecision):
    """Adds each patch's fixed position to its token."""

    table: Tensor

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("table", sin_cos_positions(height, width, channels), persistent=False)

    def forward(self, h: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D], in float32 unless `h` is more precise
        return h + self.table
