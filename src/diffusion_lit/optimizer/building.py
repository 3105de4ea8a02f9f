"""An optimizer of what is trained, as a setting describes it, new or resumed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["build_optimizer", "check_optimizer", "refresh"]


def check_optimizer(make: Callable[..., Optimizer]) -> None:
    """Raise a ValueError, with the settings that `make` was given, if it cannot build an optimizer of them."""
    p = nn.Parameter(torch.zeros(2, 2))
    try:
        build_optimizer(make, [p], lambda: [p], "32-true")
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        given = getattr(make, "keywords", {})
        listed = ", ".join(f"optimizer.{name}={value}" for name, value in given.items())
        raise ValueError(f"the optimizer cannot be built ({error}) with {listed}") from error


def build_optimizer(
    make: Callable[..., Optimizer],
    parameters: list[nn.Parameter],
    matrices: Callable[[], Iterable[nn.Parameter]],
    precision: str,
) -> Optimizer:
    """The optimizer that `make` gives for `parameters`; where it asks for `matrices` too, as Muon does, it gets them.

    Raises:
        ValueError: if it would take the scale out of gradients only after they were clipped: in `16-mixed` they are
            multiplied by one, and Lightning leaves dividing by it to a fused optimizer.
    """
    asks = "matrices" in signature(make).parameters
    optimizer = make(parameters, **({"matrices": matrices()} if asks else {}))
    if precision == "16-mixed" and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            "a fused optimizer sees gradients only after they were clipped and judged, and trainer.precision=16-mixed "
            "leaves their scale to it; use optimizer.fused=false, or trainer.precision=bf16-mixed"
        )
    return optimizer


def refresh(optimizer: Optimizer, settings: Sequence[Mapping[str, Any]]) -> None:
    """Let a resumed optimizer, which has its checkpoint's state and settings, fit what it works on now.

    Moments come to lie in memory as their parameters do (`execution.channels_last`): a fused kernel goes through both
    in the order in which they lie, and would take one weight's moments for another's.

    Args:
        optimizer: it is changed.
        settings: those asked for now, of each group; of them the learning rate is left to each step.
    """
    for group, asked in zip(optimizer.param_groups, settings, strict=True):
        group.update({name: value for name, value in asked.items() if name != "lr"})
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)
