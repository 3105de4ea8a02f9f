"""The probability-flow ODE, and a solver whose every image takes steps of its own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lit.schedule import Schedule

__all__ = ["angle", "at_angle", "integrate", "time_of", "velocity"]

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
MAX_STEPS = 10_000


def angle(schedule: Schedule, t: Tensor) -> Tensor:
    """atan(sigma / alpha) in float64, from 0 at the data to at most pi / 2.

    On the variance-preserving scale x = cos(angle) x_0 + sin(angle) eps, and the probability-flow ODE is dx / d angle =
    v, finite and without coefficients on every schedule (Salimans & Ho 2022, appendix D, arXiv:2202.00512).
    """
    return torch.atan((-schedule.log_snr(t) / 2).exp())


def time_of(schedule: Schedule, angle: Tensor) -> Tensor:
    """The time at which the schedule is at `angle`, in float64."""
    return schedule.time(-2 * torch.tan(angle).log()).clamp(max=1)


def at_angle(schedule: Schedule, phi: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The time [B, 1, 1, 1], and x_t on the schedule's own scale, of images `x` at the angles `phi` [B]."""
    t = time_of(schedule, phi).to(x.dtype).view(-1, 1, 1, 1)
    return t, schedule.scale(t) * x


def velocity(phi: Tensor, x: Tensor, x_0: Tensor) -> Tensor:
    """dx / d angle = v = (cos x - x_0) / sin, where the model makes `x_0` of `x` at the angles `phi` [B]."""
    cos, sin = (f(phi).to(x.dtype).view(-1, 1, 1, 1) for f in (torch.cos, torch.sin))
    return (cos * x - x_0) / sin


def integrate(
    derivative: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    start: Tensor,
    end: Tensor,
    rtol: float,
    atol: float,
) -> Tensor:
    """y(end) of dy / du = derivative(u, y), by Dormand and Prince's pair of orders 5 and 4 with adaptive steps.

    Each row has its own step size, so that its solution does not depend on what else is in the batch.

    Args:
        derivative: (u float64 [B], y [B, N]) -> [B, N].
        y: at `start`, [B, N].
        start, end: float64 [B].
        rtol, atol: the root mean square of a step's error over atol + rtol |y| is kept below 1.

    Raises:
        FloatingPointError: if the solution stops being finite, or 10,000 steps are not enough.
    """
    u, h, shortest = start, (end - start) / 20, 1e-9 * (end - start).abs()
    slope = derivative(u, y)
    for _ in range(MAX_STEPS):
        h = torch.where((end - u).abs() < h.abs(), end - u, h)
        slopes, proposal = [slope], y
        for node, weights in zip(NODES, STAGES, strict=True):
            proposal = y + sum_of(weights, slopes, h)
            slopes.append(derivative(u + node * h, proposal))
        error = sum_of(ERROR, slopes, h)  # the last stage is the solution of order 5, and its slope the next first one
        norm = (error / (atol + rtol * torch.maximum(y.abs(), proposal.abs()))).square().mean(1).sqrt().double()
        accepted = norm <= 1
        y = torch.where(accepted[:, None], proposal, y)
        slope = torch.where(accepted[:, None], slopes[-1], slope)
        u = torch.where(accepted, torch.where((end - u).abs() <= h.abs(), end, u + h), u)
        h = h * (0.9 * norm.nan_to_num(math.inf).clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
        if not slope.isfinite().all() or (~norm.isfinite() & (h.abs() < shortest)).any():
            raise FloatingPointError("the probability-flow ODE's solution is not finite; does the model give NaN?")
        if (u == end).all():
            return y
    raise FloatingPointError(
        f"the probability-flow ODE took over {MAX_STEPS} steps; raise rtol and atol, or use a sampler of fixed steps"
    )


def sum_of(weights: tuple[float, ...], slopes: list[Tensor], h: Tensor) -> Tensor:
    """h times the weighted sum of the slopes."""
    total = sum((w * k for w, k in zip(weights, slopes, strict=True) if w), torch.zeros_like(slopes[0]))
    return h.to(total.dtype)[:, None] * total
