"""What processes that are connected ask each other for; a process that is alone asks itself."""

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gathered", "rank_and_size"]


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many processes there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gathered(x: Tensor) -> Tensor:
    """`x` [B, ...] of all ranks, of the same shape on each, one after the other."""
    if not dist.is_initialized():
        return x
    everywhere = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, x)
    return torch.cat(everywhere)
