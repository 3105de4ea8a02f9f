"""What processes that are connected ask each other for; a process that is alone asks itself."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["decided", "gathered", "gathered_in_order", "gathered_objects", "rank_and_size", "wait_for_all"]

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process may wait for one that has more to do; a launcher ends all if one fails."""


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


def gathered_in_order(own: Tensor, count: int) -> Tensor:
    """The rows [count, ...] of all ranks, of which rank r of W has the rows r, r + W, r + 2 W, ... in `own`."""
    size = rank_and_size()[1]
    missing = -(-count // size) - len(own)
    rows = gathered(torch.cat([own, own[:missing]]).contiguous())
    return rows.view(size, -1, *own.shape[1:]).transpose(0, 1).flatten(0, 1)[:count]


def gathered_objects(x: T) -> list[T]:
    """`x` of all ranks, in their order, on all."""
    if not dist.is_initialized():
        return [x]
    everywhere: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, x)
    return everywhere  # type: ignore[return-value]


def decided(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank, be it hours later, on all ranks; so of a ValueError or OSError it raises."""
    if not dist.is_initialized():
        return make()
    box: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            box = [make()]
        except (ValueError, OSError) as error:
            box = [error]
    wait_for_all()
    dist.broadcast_object_list(box, 0)
    if isinstance(box[0], ValueError | OSError):
        raise box[0]
    return box[0]  # type: ignore[return-value]


def wait_for_all() -> None:
    """Return once all ranks have called this, be it hours later."""
    if dist.is_initialized():
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(group, dist.ProcessGroup)
        dist.barrier(group)
