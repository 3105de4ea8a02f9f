"""Layers that keep the magnitude of what passes through them (Karras et al. 2024, appendix B, arXiv:2312.02696).

The magnitude of a tensor is the root mean square of its numbers, 1 for standard Gaussian noise. Each part here gives
outputs of magnitude 1 for independent inputs of magnitude 1, without having to look at them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lit.distributed.sharding import local, reshard
from diffusion_lit.fixed_precision import FixedPrecision

__all__ = ["MPConv", "MPFourier", "MPLinear", "force_unit_weights", "mp_cat", "mp_silu", "mp_sum", "normalized"]


def normalized(x: Tensor, dim: int | Sequence[int], eps: float = 1e-4) -> Tensor:
    """`x` / (magnitude + `eps`), the magnitude being taken over `dim`; at least float32 inside, given as `x` is."""
    dims = [dim] if isinstance(dim, int) else list(dim)
    count = 1
    for d in dims:  # a loop, and no generator: a compiler breaks the graph at one
        count *= x.shape[d]
    wide = torch.promote_types(x.dtype, torch.float32)
    magnitude = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=wide) / math.sqrt(count)
    return (x.to(wide) / (magnitude + eps)).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU over its magnitude for standard Gaussian inputs (eq. 81)."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b over its magnitude (eq. 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of both, [B, C_a, H, W] and [B, C_b, H, W], contributing as 1 - t to t, however many (eq. 103)."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(a.shape[1])), b * (scale * t / math.sqrt(b.shape[1]))], dim=1)


class MPFourier(FixedPrecision):
    """sqrt(2) cos(frequency x + phase), with random frequencies and phases that stay as they are (eq. 75).

    They are kept in checkpoints, since nothing else says which were drawn.

    Args:
        channels: how many.
        bandwidth: of x, beyond whose inverse two values look unrelated.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * bandwidth * torch.randn(channels, dtype=torch.float32))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:  # [B] -> float32 [B, channels]
        return math.sqrt(2) * torch.cos(x.float()[:, None] * self.frequencies + self.phases)


class UnitWeight(nn.Module):
    """A weight [C_out, C_in, ...] used with each output's part of it, a row, at magnitude 1 (eq. 47).

    Its length has so no effect on the output, and the gradient is orthogonal to it: steps would make it grow, and the
    effective learning rate fall. `force_unit_weights` undoes that before each step (eq. 66).
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))

    def unit(self) -> Tensor:
        """The rows at magnitude 1, float32."""
        return normalized(self.weight.float(), range(1, self.weight.dim()))

    def scaled(self, gain: Tensor | float) -> Tensor:
        """`unit` as it keeps the magnitude of the input, times `gain`, float32."""
        return (self.unit() * (gain / math.sqrt(self.weight[0].numel()))).float()

    def force(self) -> None:
        """Replace the weight by its rows at magnitude 1; a shard has whole rows."""
        weight = local(self.weight)
        weight.copy_(normalized(weight, range(1, weight.dim())))


class MPLinear(UnitWeight):
    """A dense layer without a bias, for embeddings: in float32 whatever the precision around it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(out_channels, in_channels)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:  # [B, C_in] -> float32 [B, C_out]
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # meta tensors have no autocast
            return F.linear(x.float(), self.scaled(gain))


class MPConv(UnitWeight):
    """A convolution without a bias that keeps the resolution, `size` being its kernel's."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(out_channels, in_channels, size, size)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:  # [B, C_in, H, W] -> [B, C_out, H, W]
        return F.conv2d(x, self.scaled(gain).to(x.dtype), padding=self.weight.shape[-1] // 2)


@torch.no_grad()
def force_unit_weights(module: nn.Module) -> None:
    """Forced weight normalization (eq. 66): to be called before each training step; nothing without such layers.

    Not within a forward, as in the paper's code: there a sharded layer sees a copy that is thrown away, a checkpointed
    layer would be changed while gradients are computed, and a compiled one would have to be compiled for it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, UnitWeight)]
    if layers:
        reshard(module)
    for layer in layers:
        layer.force()
