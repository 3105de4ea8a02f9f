"""A linear warm-up, then the inverse square root of the step."""

from dataclasses import dataclass

from diffusion_lit.lr_schedule.warmup import WarmupLR

__all__ = ["InverseSqrtLR"]


@dataclass(frozen=True)
class InverseSqrtLR(WarmupLR):
    """The warm-up's rate, divided by sqrt(max(step / reference, 1)) (EDM2, Karras et al. 2024,
    arXiv:2312.02696).

    It needs no planned end: training can be continued for as long as it helps.

    Args:
        num_steps, start: of the warm-up.
        reference: optimizer steps up to which the whole rate is kept; at least 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    reference: int = 70000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference < 1:
            raise ValueError(f"lr_schedule.reference must be at least 1, got {self.reference}")

    def factor(self, step: int, share: float) -> float:
        return super().factor(step, share) / max(step / self.reference, 1.0) ** 0.5
