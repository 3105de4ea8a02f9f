"""A number that ranks tell each other while they work."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["SharedNumber"]


class SharedNumber:
    """The largest number of all ranks, as it was a call ago: so nobody waits for the others, nor for a device."""

    def __init__(self, world_size: int) -> None:
        self.group: Any = None if world_size == 1 else torch.distributed.new_group(backend="gloo")
        self.sent: tuple[Any, Tensor] | None = None

    def exchange(self, number: int, now: bool = False) -> int:
        """Send this rank's number; all ranks get the same answer. Of a single process it is the number itself.

        Args:
            number: 0 or more.
            now: whether to wait for what is sent now, and not only for what was sent before.
        """
        if self.group is None:
            return number
        largest = torch.tensor(number)
        work = torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, self.group, async_op=True)
        awaited = [] if self.sent is None else [self.sent]
        self.sent = (work, largest)
        if now:
            awaited, self.sent = [*awaited, self.sent], None
        for earlier, _ in awaited:
            earlier.wait()
        return max((int(answer) for _, answer in awaited), default=0)
