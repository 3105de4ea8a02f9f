"""Draw an image again where its pixels have moved to, without aliasing."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
"""The low-pass filter of the symlet with 6 vanishing moments, orthogonal to its even shifts (Daubechies 1992)."""

REACH = 5
"""How many samples the filter reaches before the pixel that it belongs to; it reaches 6 behind."""


def resample(x_0: Tensor, inverse: Tensor, shift: Tensor) -> Tensor:
    """Draw the images at twice the resolution, move them there, and draw them at their own again.

    What is seen at the position p, in pixels from the centre, x to the right and y down, was at `inverse (p - shift)`.
    Beyond its edges an image continues as its mirror image, once, and is 0 after that (Karras et al. 2020, appendix B,
    arXiv:2006.06676). Both filters are matrices, applied to columns and rows.

    `inverse` [B, 2, 2] is the inverse of the linear transformation of each image of `x_0` [B, C, H, W], `shift` [B, 2]
    the translation after it, in pixels.
    """
    height, width = x_0.shape[2:]
    dtype = torch.promote_types(x_0.dtype, torch.float32)
    kind = (dtype, x_0.device)
    finer = widening(height, *kind) @ x_0.to(dtype) @ widening(width, *kind).mT
    moved = F.grid_sample(finer, sources(height, width, inverse, shift).to(dtype), align_corners=True)
    return (narrowing(height, *kind) @ moved @ narrowing(width, *kind).mT).to(x_0.dtype)


def sources(height: int, width: int, inverse: Tensor, shift: Tensor) -> Tensor:
    """Where in the finer image each half pixel comes from, (x, y) in [-1, 1], [B, 2 H + 10, 2 W + 10, 2]."""
    y, x = (
        torch.arange(-REACH, 2 * size + REACH, dtype=shift.dtype, device=shift.device) / 2 - (size - 1) / 2
        for size in (height, width)
    )
    positions = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    x, y = ((positions - shift[:, None, None]) @ inverse.mT[:, None]).unbind(-1)
    return torch.stack([(4 * x - 1) / (6 * width - 5), (4 * y - 1) / (6 * height - 5)], dim=-1)


@cache
def widening(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Mirrors a line of pixels at both of its ends and doubles its resolution: a matrix [6 size - 4, size]."""
    pixels = torch.eye(size, dtype=torch.float64)[:, None]
    lines = F.pad(pixels, [size - 1, size - 1], mode="reflect")
    return F.conv_transpose1d(lines, low_pass(), stride=2, padding=REACH)[:, 0].T.to(device, dtype)


@cache
def narrowing(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Halves the resolution of a line of 2 size + 10 half pixels: a matrix [size, 2 size + 10]."""
    half_pixels = torch.eye(2 * (size + REACH), dtype=torch.float64)[:, None]
    return F.conv1d(half_pixels, low_pass(), stride=2)[:, 0].T.to(device, dtype)


def low_pass() -> Tensor:
    return torch.tensor(SYM6, dtype=torch.float64).view(1, 1, -1)
