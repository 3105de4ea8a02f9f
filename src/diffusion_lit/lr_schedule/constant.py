"""One learning rate throughout."""

from dataclasses import dataclass

from diffusion_lit.lr_schedule.base import LRSchedule

__all__ = ["ConstantLR"]


@dataclass(frozen=True)
class ConstantLR(LRSchedule):
    """The whole of the optimizer's rate, from the first step on."""

    def factor(self, step: int, share: float) -> float:
        return 1.0
