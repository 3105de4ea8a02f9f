"""Buffers that no change of precision rounds."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

__all__ = ["FixedPrecision"]


class FixedPrecision(nn.Module):
    """A module whose own buffers follow it to another device, never to another dtype.

    A table or a frequency in bfloat16 is wrong in its third digit, and one that was rounded in training differs from
    the exact one that sampling uses. Parameters and submodules follow as usual; buffers are created in the dtype that
    they are to have, by name.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = {name: table.to(fn(table.new_empty(0)).device) for name, table in self.named_buffers(recurse=False)}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update(moved)
        return self
