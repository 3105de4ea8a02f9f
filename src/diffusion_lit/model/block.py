"""The building blocks of the U-Net, and what other networks share with it."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero(module: nn.Module) -> nn.Module:
    """Zero the parameters of a branch's last layer, so that the branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def downsample(channels: int, same: bool = False) -> nn.Module:
    """Halves the resolution by a strided convolution.

    It pads by a pixel on all sides, or on the right and below alone (`same`, after the padding's name in TensorFlow),
    where the centres of the windows lie elsewhere.
    """
    if not same:
        return nn.Sequential(OrderedDict(layer=nn.Conv2d(channels, channels, 3, stride=2, padding=1)))
    conv = nn.Conv2d(channels, channels, 3, stride=2)
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), layer=conv))


def upsample(channels: int) -> nn.Module:
    """Doubles the resolution by repeating pixels, then a convolution."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(OrderedDict(repeat=nn.Upsample(scale_factor=2), conv=conv))


class GroupNorm(nn.GroupNorm):
    """Under autocast, too, in its input's dtype: on a GPU, autocast would turn the features to float32 and back.

    Its kernels add up means and variances in float32, whatever the dtype of the features.
    """

    def forward(self, x: Tensor) -> Tensor:  # [B, C, ...] -> [B, C, ...]
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class ResBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU, conditioned on time in between, around a skip connection.

    Args:
        in_channels, out_channels, emb_channels: C of the input and of the output, and the time embedding's width.
        num_groups: groups of each GroupNorm.
        dropout: probability, before the second convolution.
        scale_shift: condition by a scale and a shift after the second norm (Dhariwal & Nichol 2021, eq. 6) and not by
            adding to the features before it (Ho et al. 2020).
        resample: halves or doubles the resolution, in both branches (Brock et al. 2019); None keeps it.
        norm_eps: what each GroupNorm adds to the variance.
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
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample or nn.Identity()
        self.norm_1 = GroupNorm(num_groups, in_channels, norm_eps)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        self.norm_2 = GroupNorm(num_groups, out_channels, norm_eps)
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
    """Self-attention over pixels, around a skip connection.

    Args:
        channels: C of input and output.
        num_groups, norm_eps: of the GroupNorm.
        head_channels: size of each head; or
        num_heads: how many there are. With neither, one head.
        qkv_by_head: the projection's rows are query, key and value of the first head, then of the second, and so on
            (Improved DDPM); else the queries of all heads, their keys, their values.

    Raises:
        ValueError: if `channels` cannot be shared out so.
    """

    def __init__(
        self,
        channels: int,
        num_groups: int,
        head_channels: int | None = None,
        num_heads: int | None = None,
        qkv_by_head: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if channels % (head_channels or num_heads or 1):
            chosen = f"head_channels={head_channels}" if head_channels else f"num_heads={num_heads}"
            raise ValueError(f"{chosen} does not divide an attention layer's {channels} channels")
        self.num_heads = channels // head_channels if head_channels else num_heads or 1
        self.qkv_by_head = qkv_by_head
        self.norm = GroupNorm(num_groups, channels, norm_eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        # a pixel's channels side by side: the kernels that keep no table of all pairs of pixels take nothing else
        rows = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # [B, HW, 3 C]
        if self.qkv_by_head:
            qkv = rows.unflatten(2, (self.num_heads, 3, -1)).transpose(2, 3)
        else:
            qkv = rows.unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.transpose(1, 3).unbind(2)  # each [B, heads, HW, C / heads]
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(x.shape))
