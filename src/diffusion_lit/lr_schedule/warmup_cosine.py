"""A linear warm-up, then half a cosine down to the end of the budget."""

import math
from dataclasses import dataclass

from diffusion_lit.lr_schedule.warmup import WarmupLR

__all__ = ["WarmupCosineLR"]


@dataclass(frozen=True)
class WarmupCosineLR(WarmupLR):
    """The warm-up's rate times half a cosine over the whole budget (Loshchilov & Hutter 2017, eq. 5, arXiv:1608.03983).

    The budget may be of steps, epochs, images or minutes. A run that is resumed with a larger one has, at each step,
    the rate which that budget gives it.

    Args:
        num_steps, start: of the warm-up.
        end: factor when the budget is used up, in [0, 1].

    Raises:
        ValueError: if an argument is out of range.
    """

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.end <= 1:
            raise ValueError(f"lr_schedule.end must lie in [0, 1], got {self.end}")

    def factor(self, step: int, share: float) -> float:
        falling = self.end + (1 - self.end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
        return super().factor(step, share) * falling
