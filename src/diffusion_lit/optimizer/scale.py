"""What becomes of the scale of gradients in float16."""

from torch.optim import Optimizer

__all__ = ["check_scale"]


def check_scale(optimizer: Optimizer, precision: str) -> None:
    """Raise a ValueError if `optimizer` would take the scale out of gradients only after they were clipped.

    In `16-mixed` gradients are multiplied by a scale, and Lightning leaves dividing by it to a fused optimizer.
    """
    if precision == "16-mixed" and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            "a fused optimizer sees gradients only after they were clipped and judged, and trainer.precision=16-mixed "
            "leaves their scale to it; use optimizer.fused=false, or trainer.precision=bf16-mixed"
        )
