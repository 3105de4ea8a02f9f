"""The building blocks of DDPM++ and NCSN++."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.fixed_precision import FixedPrecision
from diffusion_lit.model.block import Attention, GroupNorm

ROOT_HALF = math.sqrt(0.5)
"""By which a sum of two branches is scaled, so that its variance is theirs."""
EPS = 1e-6
NEARLY_ZERO = 1e-5
"""Gain of a branch's last layer, with which the branch starts as about the identity."""


def initialise(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> None:
    """Draw a layer's weights uniformly (Glorot & Bengio 2010), times `gain`; its bias is zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias)
    initialise(layer)
    return layer


def conv(in_channels: int, out_channels: int, size: int, gain: float = 1.0, padding: int | None = None) -> nn.Conv2d:
    """A convolution by `size` x `size` pixels that keeps the resolution, unless `padding` says otherwise."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2 if padding is None else padding)
    initialise(layer, gain)
    return layer


def num_groups_of(channels: int, num_groups: int) -> int:
    """How many groups a GroupNorm of `channels` has: `num_groups`, but at least four channels to a group.

    Raises:
        ValueError: if the channels cannot be shared out equally.
    """
    groups = min(num_groups, channels // 4)
    if groups < 1 or channels % groups:
        raise ValueError(
            f"{channels} channels do not make {max(groups, 1)} equal groups of at least 4: let model.channels be a "
            f"multiple of 4 and of model.num_groups={num_groups}"
        )
    return groups


def group_norm(channels: int, num_groups: int) -> GroupNorm:
    return GroupNorm(num_groups_of(channels, num_groups), channels, eps=EPS)


class PositionalEmbedding(FixedPrecision):
    """`channels` (even) sines and cosines of c_noise, of frequencies from 1 down to 1 / 10,000.

    The angle, up to a thousand radians, is float32 whatever the network's precision.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        share = torch.arange(channels // 2, dtype=torch.float32) / (channels // 2 - 1)
        self.register_buffer("frequencies", (1 / 10_000) ** share, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:  # [B] -> [B, channels]
        angle = c_noise.float()[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class FourierEmbedding(FixedPrecision):
    """`channels` (even) sines and cosines of 2 pi f c_noise, of frequencies f drawn once from N(0, scale^2).

    Tancik et al. 2020, arXiv:2006.10739. The frequencies are not trained; they belong to the weights.
    """

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        frequencies = scale * torch.randn(channels // 2, dtype=torch.float32)
        self.frequencies = nn.Parameter(frequencies, requires_grad=False)

    def forward(self, c_noise: Tensor) -> Tensor:  # [B] -> [B, channels]
        angle = c_noise.float()[:, None] * (2 * math.pi * self.frequencies)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Resample(FixedPrecision):
    """Halves or doubles the resolution by a filter along both axes (Zhang 2019, arXiv:1904.11486).

    Args:
        taps: the filter, in any scale; an even number of weights.
        up: doubles the resolution; otherwise it is halved.
        padded: whether zeros are put around the image, so that its size is exactly halved, or are there already.

    Raises:
        ValueError: if there is no such filter.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float], up: bool = False, padded: bool = True) -> None:
        super().__init__()
        if len(taps) < 2 or len(taps) % 2 or not sum(taps) > 0:
            raise ValueError(
                f"model.resample_filter must be an even number of weights with a positive sum, got {list(taps)}; "
                "[1,1] is DDPM++'s, [1,3,3,1] is NCSN++'s"
            )
        weights = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(weights, weights) / sum(taps) ** 2
        self.register_buffer("kernel", 4 * kernel if up else kernel, persistent=False)
        self.up, self.padding = up, len(taps) // 2 - 1 if padded else 0

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H / 2, W / 2] or [B, C, 2 H, 2 W]
        channels, resample = x.shape[1], F.conv_transpose2d if self.up else F.conv2d
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return resample(x, kernel, stride=2, padding=self.padding, groups=channels)


def downsample(taps: Sequence[float], padded: bool = True) -> nn.Module:
    """Halves the resolution; [1, 1] is the mean of four pixels."""
    return nn.AvgPool2d(2) if list(taps) == [1, 1] else Resample(taps, padded=padded)


def upsample(taps: Sequence[float]) -> nn.Module:
    """Doubles the resolution; [1, 1] repeats pixels."""
    return nn.Upsample(scale_factor=2) if list(taps) == [1, 1] else Resample(taps, up=True)


class PyramidInput(nn.Sequential):
    """A level's input from the level above, past its blocks: a convolution, then half the resolution."""

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float]) -> None:
        before = conv(in_channels, out_channels, 3, padding=len(taps) // 2)
        super().__init__(before, downsample(taps, padded=False))


class ScaledAttention(Attention):
    """Self-attention over pixels, around a skip connection; the sum has its branches' variance."""

    def __init__(self, channels: int, num_groups: int, head_channels: int | None = None) -> None:
        super().__init__(channels, num_groups_of(channels, num_groups), head_channels)
        self.norm = group_norm(channels, num_groups)
        self.qkv = conv(channels, 3 * channels, 1, math.sqrt(0.2))
        self.out = conv(channels, channels, 1, NEARLY_ZERO)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        return ROOT_HALF * super().forward(x)


class SongBlock(nn.Module):
    """A residual block whose sum has its branches' variance, with attention after it where there is any.

        y = sqrt(1/2) (skip(R x) + conv(dropout(silu(norm(conv(R silu(norm(x))) + layer(silu(emb)))))))

    R is the identity or resamples, in both branches (Brock et al. 2019, arXiv:1809.11096). The skip connection is a
    1 x 1 convolution where R resamples or the channels change.

    Args:
        in_channels, out_channels, emb_channels: C of the input and of the output, and the embedding's width.
        num_groups: groups of each GroupNorm, at most.
        dropout: probability, before the second convolution.
        resample: R; None is the identity.
        attention: what follows; None for nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        num_groups: int,
        dropout: float = 0.0,
        resample: nn.Module | None = None,
        attention: ScaledAttention | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample or nn.Identity()
        self.norm_1 = group_norm(in_channels, num_groups)
        self.conv_1 = conv(in_channels, out_channels, 3)
        self.emb = linear(emb_channels, out_channels)
        self.norm_2 = group_norm(out_channels, num_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = conv(out_channels, out_channels, 3, NEARLY_ZERO)
        projects = resample is not None or in_channels != out_channels
        self.skip = conv(in_channels, out_channels, 1) if projects else nn.Identity()
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # [B, C_in, H, W], [B, E] -> [B, C_out, H', W']
        h = self.conv_1(self.resample(F.silu(self.norm_1(x))))
        h = self.norm_2(h + self.emb(F.silu(emb))[:, :, None, None])
        h = self.conv_2(self.dropout(F.silu(h)))
        return self.attention(ROOT_HALF * (self.skip(self.resample(x)) + h))
