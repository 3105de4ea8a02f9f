"""Every time alike, and every batch spread over all of them."""

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.distributed.collective import rank_and_size
from diffusion_lit.schedule import Schedule


class StratifiedDensity(Density):
    """1 - t_i = (u + i / B) mod 1 with one u ~ U[0, 1) for all B images of a step (Kingma et al. 2021, I.1).

    A step is the batches of all ranks, and all those over which gradients are accumulated. Each time is uniform,
    together they are evenly spaced: the loss varies less between steps. arXiv:2107.00630.
    """

    u: Tensor
    """Of the newest step."""

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        u = torch.rand((), generator=generator, dtype=x_0.dtype, device=x_0.device)
        column, columns = 0, 1
        if self.training:  # validation batches need not come in step
            (column, columns), (rank, world) = self.place, rank_and_size()
            if world > 1:
                dist.broadcast(u, src=0)
            self.u = u = u if column == 0 else self.u
            column, columns = column * world + rank, columns * world
        i = column + columns * torch.arange(len(x_0), dtype=x_0.dtype, device=x_0.device)
        return (1 - (u + i / (columns * len(x_0))) % 1).view(-1, 1, 1, 1)
