"""The transformer of DiT and SiT."""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.condition import Condition
from diffusion_lit.model.base import Network
from diffusion_lit.model.block import zero
from diffusion_lit.model.embedding import Positions, TimeEmbedding, add_condition
from diffusion_lit.model.level import check_counts
from diffusion_lit.resolution import height_and_width

TIME_CHANNELS = 256
"""Sines and cosines of c_noise, whatever the width of the network."""
NORM_EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        qkv = self.qkv(h).unflatten(-1, (3, self.num_heads, -1))  # [B, N, 3, heads, D / heads]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and an MLP, each modulated by the condition and gated by it: adaLN-Zero (Peebles & Xie 2023, fig. 3).

        h = h + g_1 attention((1 + s_1) norm(h) + b_1),  h = h + g_2 mlp((1 + s_2) norm(h) + b_2)

    b, s and g, a number for each channel, are a linear function of the embedding and zero at first: the block starts
    as the identity.
    """

    def __init__(self, channels: int, num_heads: int, mlp_channels: int, mlp_norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(channels, elementwise_affine=False, eps=NORM_EPS)
        self.attention = SelfAttention(channels, num_heads)
        self.norm_2 = nn.LayerNorm(channels, elementwise_affine=False, eps=mlp_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_channels), nn.GELU(approximate="tanh"), nn.Linear(mlp_channels, channels)
        )
        self.modulation = nn.Linear(channels, 6 * channels)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:  # [B, N, D], [B, D] after its SiLU -> [B, N, D]
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(emb)[:, None].chunk(6, dim=-1)
        h = h + gate_1 * self.attention(self.norm_1(h) * (1 + scale_1) + shift_1)
        return h + gate_2 * self.mlp(self.norm_2(h) * (1 + scale_2) + shift_2)


class LastLayer(nn.Module):
    """A modulated norm, then from each token the pixels of its patch."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False, eps=NORM_EPS)
        self.modulation = nn.Linear(channels, 2 * channels)
        self.linear = nn.Linear(channels, out_channels)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:  # [B, N, D], [B, D] after its SiLU -> [B, N, out_channels]
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm(h) * (1 + scale) + shift)


class DiT(Network):
    """The transformer of Peebles & Xie 2023, arXiv:2212.09748, conditioned on the time and, optionally, a class.

    The image is cut into square patches, each of which becomes a token; blocks are conditioned by adaLN-Zero. The
    defaults are DiT-XL/2. SiT (Ma et al. 2024, arXiv:2401.08740) is the same network with `schedule=flow` and
    `parameterization=velocity`.

    Args:
        resolution: the images' height and width; a number is both. Each is a multiple of `patch_size`.
        image_channels: in and out: 1 or 3, or those of latents.
        patch_size: height and width of a patch; halving it makes four times as many tokens.
        channels: width of the tokens, a multiple of `num_heads` and of 4.
        depth: the number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden width of each MLP, as a multiple of `channels`.
        num_classes: None for an unconditional network; else labels are 0..num_classes - 1, or `NO_CLASS`.
        augmentation_dim: how many numbers of EDM's augment label it takes; 0 for none.
        learn_variance: twice as many channels out as in; the second half says how uncertain a reverse step is
            (Nichol & Dhariwal 2021, section 3.1).
        frequency_shift, time_scale: see `TimeEmbedding`; 0 and 1 as published; 1 in diffusers' DiT, 0.001 in SiT's.
        mlp_norm_eps: added to the variance in the norm before each MLP; 1e-6 as published, 1e-5 in diffusers' DiT.

    Raises:
        ValueError: if the resolution does not fit the patches, or the heads the width, or a number is below 1.
    """

    def __init__(
        self,
        resolution: int | Sequence[int],
        image_channels: int,
        patch_size: int = 2,
        channels: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int | None = None,
        learn_variance: bool = False,
        augmentation_dim: int = 0,
        frequency_shift: float = 0.0,
        mlp_norm_eps: float = NORM_EPS,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        counts = {"image_channels": image_channels, "patch_size": patch_size, "depth": depth, "num_heads": num_heads}
        check_counts(num_classes, **counts)
        height, width = height_and_width(resolution, "model.resolution")
        for side in (height, width):
            if side % patch_size:
                below = max(side // patch_size * patch_size, patch_size)
                raise ValueError(
                    f"the network cuts the image into patches of {patch_size} x {patch_size}, so its sides must be "
                    f"multiples of {patch_size}, and {side} is not; {below} and {below + patch_size} are. Set "
                    "data.resolution, or model.patch_size"
                )
        if channels < 1 or channels % num_heads or channels % 4:
            raise ValueError(
                f"model.channels={channels} must be a multiple of 4, for the positions, and of "
                f"model.num_heads={num_heads}"
            )
        if int(channels * mlp_ratio) < 1:
            raise ValueError(f"model.mlp_ratio={mlp_ratio} leaves the MLPs no channels; 4 is usual")

        self.image_shape = (image_channels, height, width)
        self.num_classes, self.learn_variance, self.augmentation_dim = num_classes, learn_variance, augmentation_dim
        self.patch_size = patch_size

        self.first = nn.Conv2d(image_channels, channels, patch_size, stride=patch_size)
        self.positions = Positions(height // patch_size, width // patch_size, channels)
        self.time = TimeEmbedding(TIME_CHANNELS, channels, time_scale, frequency_shift)
        self.label = nn.Embedding(num_classes + 1, channels) if num_classes is not None else None
        self.augmentation = nn.Linear(augmentation_dim, channels, bias=False) if augmentation_dim else None
        self.layers = nn.ModuleList(
            TransformerBlock(channels, num_heads, int(channels * mlp_ratio), mlp_norm_eps) for _ in range(depth)
        )
        self.last = LastLayer(channels, patch_size**2 * image_channels * (2 if learn_variance else 1))
        self.initialize()

    def initialize(self) -> None:
        """As published: Xavier's uniform for all dense layers and the patches', and zero where a branch ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))  # a view; on patches, a convolution is a dense layer
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for weight in self.time.layers.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, TransformerBlock | LastLayer):
                zero(module.modulation)
        zero(self.last.linear)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        emb = F.silu(add_condition(self.time(c_noise), condition, self.label, self.augmentation))
        dtype = self.first.weight.dtype
        tokens = self.first(x.to(dtype))  # [B, D, H / p, W / p]
        rows, columns = tokens.shape[-2:]
        h = self.positions(tokens.flatten(2).transpose(1, 2)).to(dtype)
        for layer in self.layers:
            h = layer(h, emb)
        patches = self.last(h, emb).unflatten(1, (rows, columns)).unflatten(-1, (self.patch_size, self.patch_size, -1))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # [B, C, rows, p, columns, p] before

    def blocks(self) -> Iterable[nn.Module]:
        return self.layers

    def class_parameters(self) -> Iterable[str]:
        return () if self.label is None else ("label.weight",)
