"""A linear warm-up."""

from dataclasses import dataclass

from diffusion_lit.lr_schedule.base import LRSchedule

__all__ = ["WarmupLR"]


@dataclass(frozen=True)
class WarmupLR(LRSchedule):
    """From `start` to the whole of the optimizer's rate along a straight line, and there it stays.

    Args:
        num_steps: optimizer steps of the warm-up; 0 has none.
        start: factor of the first step, in [0, 1].

    Raises:
        ValueError: if an argument is out of range.
    """

    num_steps: int = 100
    start: float = 0.01

    def __post_init__(self) -> None:
        if self.num_steps < 0 or not 0 <= self.start <= 1:
            raise ValueError(
                "lr_schedule needs num_steps of at least 0 and start in [0, 1], got "
                f"num_steps={self.num_steps} and start={self.start}"
            )

    def factor(self, step: int, share: float) -> float:
        return self.start + (1 - self.start) * min(step / self.num_steps, 1.0) if self.num_steps else 1.0
