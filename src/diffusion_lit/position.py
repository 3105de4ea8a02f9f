"""Where a patch lies in its image, as sines and cosines."""

import torch
from torch import Tensor

__all__ = ["sin_cos_positions"]


def sin_cos_positions(height: int, width: int, channels: int) -> Tensor:
    """Float32 [height * width, channels], row by row, computed in float64 (Peebles & Xie 2023, as He et al. 2022).

    A quarter of the channels each: sin(w x), cos(w x), sin(w y), cos(w y). x counts columns and y rows, from 0, and
    w_i = 10000^(-i / (channels / 4)).

    Raises:
        ValueError: if `channels` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"sines and cosines of two coordinates need a multiple of 4 channels, got {channels}")
    frequencies = 10_000.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    angles = [coordinate.reshape(-1, 1) * frequencies for coordinate in (x, y)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()
