"""The vision transformer of DINOv2."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
MLP_RATIO = 4


class VisionTransformer(nn.Module):
    """Patches and a class token through pre-norm blocks with layer scale; returns the class token, normalised.

    Dosovitskiy et al. 2021, arXiv:2010.11929; layer scale by Touvron et al. 2021, arXiv:2103.17239. Parameters have the
    names that DINOv2's files give them (Oquab et al. 2024, arXiv:2304.07193).

    Args:
        resolution: height and width of the images, a multiple of `patch_size`.
        patch_size: height and width of a patch.
        width: channels of a token, a multiple of `num_heads`.
        depth: number of blocks.
        num_heads: heads of the attention.
    """

    def __init__(self, resolution: int, patch_size: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (resolution // patch_size) ** 2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, stride=patch_size)})
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).mT  # [B, patches, width]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.norm(self.blocks(tokens)[:, 0])


class Block(nn.Module):
    """x + gamma_1 attention(norm(x)), then + gamma_2 mlp(norm(x))."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        hidden = MLP_RATIO * width
        layers = {"fc1": nn.Linear(width, hidden), "act": nn.GELU(), "fc2": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls2 = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Every token reads all tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, tokens, d]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x
