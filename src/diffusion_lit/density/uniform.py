"""Every time alike."""

import torch
from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.schedule import Schedule


class UniformDensity(Density):
    """t ~ U(0, 1], which a discrete schedule snaps to t T ~ U{1, ..., T} (Ho et al. 2020, algorithm 1)."""

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        return 1 - torch.rand(len(x_0), 1, 1, 1, generator=generator, dtype=x_0.dtype, device=x_0.device)
