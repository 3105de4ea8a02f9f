"""The building block of EDM2's U-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.model.magnitude import MPConv, MPLinear, mp_silu, mp_sum, normalized

__all__ = ["CosineAttention", "MPBlock"]


class MPBlock(nn.Module):
    """A residual branch, conditioned on noise level and class by a scale, and self-attention (figure 21).

    Args:
        in_channels, out_channels, emb_channels: C of the input and of the output, and the embedding's width.
        decodes: whether it is on the way up, where pixels are not normalized and the residual branch sees all inputs.
        head_channels: the size of each attention head; None has no attention.
        resample: halves or doubles the resolution; None keeps it.
        dropout, residual_balance, attention_balance, clip: as in `EDM2UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        decodes: bool,
        head_channels: int | None,
        resample: nn.Module | None,
        dropout: float,
        residual_balance: float,
        attention_balance: float,
        clip: float | None,
    ) -> None:
        super().__init__()
        self.decodes, self.dropout, self.clip = decodes, dropout, clip
        self.residual_balance, self.attention_balance = residual_balance, attention_balance
        self.resample = resample or nn.Identity()
        self.conv_1 = MPConv(in_channels if decodes else out_channels, out_channels, 3)
        self.emb, self.gain = MPLinear(emb_channels, out_channels), nn.Parameter(torch.zeros(1))
        self.conv_2 = MPConv(out_channels, out_channels, 3)
        self.skip = MPConv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention = None if head_channels is None else CosineAttention(out_channels, head_channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # [B, C_in, H, W], [B, E] -> [B, C_out, H', W']
        x = self.resample(x)
        if not self.decodes:
            x = normalized(self.skip(x), dim=1)
        h = self.conv_1(mp_silu(x))
        scale = 1 + self.emb(emb, self.gain)[:, :, None, None]
        h = self.conv_2(F.dropout(mp_silu(h * scale.to(h.dtype)), self.dropout, self.training))
        x = mp_sum(self.skip(x) if self.decodes else x, h, self.residual_balance)
        if self.attention is not None:
            x = mp_sum(x, self.attention(x), self.attention_balance)
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


class CosineAttention(nn.Module):
    """Self-attention over pixels with queries, keys and values of unit magnitude; a ValueError unless `head_channels`
    divides `channels`."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        if channels % head_channels:
            raise ValueError(f"head_channels={head_channels} does not divide an attention layer's {channels} channels")
        self.num_heads = channels // head_channels
        self.qkv, self.out = MPConv(channels, 3 * channels, 1), MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        qkv = self.qkv(x).flatten(2).unflatten(1, (self.num_heads, -1, 3))  # [B, heads, C / heads, 3, HW]
        q, k, v = normalized(qkv, dim=2).transpose(2, 4).unbind(3)  # [B, heads, HW, C / heads]
        h = F.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(-1, -2).reshape(x.shape))
