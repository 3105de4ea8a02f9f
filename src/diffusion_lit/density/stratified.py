"""Every time alike, and every batch spread over all of them."""

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.schedule import Schedule


class StratifiedDensity(Density):
    """t_i = (u + i / B) mod 1 with one u ~ U[0, 1) for the batch of all ranks (Kingma et al. 2021, I.1).

    Each time is uniform, together they are evenly spaced: the loss varies less between batches. arXiv:2107.00630.
    """

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        u = torch.rand((), generator=generator, dtype=x_0.dtype, device=x_0.device)
        rank, world = 0, 1
        if self.training and dist.is_initialized():  # validation batches need not come in step
            rank, world = dist.get_rank(), dist.get_world_size()
            dist.broadcast(u, src=0)
        i = rank + world * torch.arange(len(x_0), dtype=x_0.dtype, device=x_0.device)
        return (1 - (u + i / (world * len(x_0))) % 1).view(-1, 1, 1, 1)
