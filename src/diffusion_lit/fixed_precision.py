"""Numbers that no change of precision rounds."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

__all__ = ["FixedPrecision"]


class FixedPrecision(nn.Module):
    """A module whose own buffers and frozen parameters follow it to another device, never to another dtype.

    A table or a frequency in bfloat16 is wrong in its third digit, and one that was rounded in training differs from
    the exact one that sampling uses. What is trained and submodules follow as usual; the rest is created in the dtype
    that it is to have, by name. A frozen parameter is a number that was drawn once: every set of weights has it.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = {name: table.to(fn(table.new_empty(0)).device) for name, table in self.named_buffers(recurse=False)}
        frozen = {name: p.data for name, p in self.named_parameters(recurse=False) if not p.requires_grad}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update(moved)
        for name, exact in frozen.items():
            p = self.get_parameter(name)
            if p.dtype != exact.dtype:
                p.data = exact.to(p.device)
        return self
