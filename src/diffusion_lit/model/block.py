"""The building blocks of the U-Net, and what other networks share with it."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.fixed_precision import FixedPrecision


def zero(module: nn.Module) -> nn.Module:
    """Zero the parameters of a branch's last layer, so that the branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TimeEmbedding(FixedPrecision):
    """`channels` (even) sines and cosines of c_noise, then two dense layers (Ho et al. 2020, appendix B).

    Frequencies are geometric, 10000^(-i / (channels / 2 - frequency_shift)). The angle, up to a thousand radians, is
    float32 whatever the precision of the layers.
    """

    frequencies: Tensor

    def __init__(self, channels: int, out_channels: int, frequency_shift: float = 0.0) -> None:
        super().__init__()
        half = channels // 2
        steps = torch.arange(half, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10_000) * steps / (half - frequency_shift))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels, out_channels), nn.SiLU(), nn.Linear(out_channels, out_channels))

    def forward(self, c_noise: Tensor) -> Tensor:  # [B] -> [B, out_channels]
        angle = c_noise.float()[:, None] * self.frequencies
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=1).to(next(self.layers.parameters()).dtype))


def add_condition(
    emb: Tensor, condition: Condition, label: nn.Embedding | None, augmentation: nn.Linear | None
) -> Tensor:
    """The time's embedding [B, E] and, of what is known beside it, what the network has a layer for.

    The last row of `label` is that of `NO_CLASS`. Without a bias, `augmentation` has no effect on an image left as it
    is.
    """
    if label is not None:
        index = torch.full((len(emb),), NO_CLASS, device=emb.device) if condition.label is None else condition.label
        emb = emb + label(index.where(index != NO_CLASS, label.num_embeddings - 1))
    if augmentation is not None and condition.augment_label is not None:
        emb = emb + augmentation(condition.augment_label.to(augmentation.weight.dtype))
    return emb


def downsample(channels: int) -> nn.Module:
    """Halves the resolution by a strided convolution."""
    return nn.Sequential(OrderedDict(layer=nn.Conv2d(channels, channels, 3, stride=2, padding=1)))


def upsample(channels: int) -> nn.Module:
    """Doubles the resolution by repeating pixels, then a convolution."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(OrderedDict(repeat=nn.Upsample(scale_factor=2), conv=conv))


class ResBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU, conditioned on time in between, around a skip connection.

    Args:
        in_channels, out_channels, emb_channels: C of the input and of the output, and the time embedding's width.
        num_groups: groups of each GroupNorm.
        dropout: probability, before the second convolution.
        scale_shift: condition by a scale and a shift after the second norm (Dhariwal & Nichol 2021, eq. 6) and not by
            adding to the features before it (Ho et al. 2020).
        resample: halves or doubles the resolution, in both branches (Brock et al. 2019); None keeps it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        num_groups: int,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample or nn.Identity()
        self.norm_1 = nn.GroupNorm(num_groups, in_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        self.norm_2 = nn.GroupNorm(num_groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # [B, C_in, H, W], [B, E] -> [B, C_out, H', W']
        h = self.conv_1(self.resample(F.silu(self.norm_1(x))))
        condition = self.emb(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h + condition)
        h = self.conv_2(self.dropout(F.silu(h)))
        return self.skip(self.resample(x)) + h


class Attention(nn.Module):
    """Self-attention over pixels, around a skip connection; a ValueError unless `head_channels` divides `channels`."""

    def __init__(self, channels: int, num_groups: int, head_channels: int | None = None) -> None:
        super().__init__()
        head_channels = head_channels or channels
        if channels % head_channels:
            raise ValueError(f"head_channels={head_channels} does not divide an attention layer's {channels} channels")
        self.num_heads = channels // head_channels
        self.norm = nn.GroupNorm(num_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.num_heads, -1))  # [B, 3, heads, C / heads, HW]
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)  # [B, heads, HW, C / heads]
        return x + self.out(h.transpose(-1, -2).reshape(x.shape))
