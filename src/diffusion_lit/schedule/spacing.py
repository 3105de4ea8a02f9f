"""Where sampling steps are put in time."""

import torch
from torch import Tensor

from diffusion_lit.schedule.base import Schedule

SPACINGS = ("uniform", "trailing", "leading", "quadratic", "karras", "log_snr")
RHO = 7
"""The exponent of Karras spacing; the paper's choice."""


def spaced_times(schedule: Schedule, num_steps: int | None = None, spacing: str | None = None) -> Tensor:
    """Times from 1 down to the data, the last one 0: float64 [num_steps + 1].

        uniform     evenly from 1 to t_min, the schedule's least time (diffusers' linspace rounds to the nearest step)
        trailing    1, 1 - 1/n, ..., 1/n (Lin et al. 2023, arXiv:2305.08891)
        leading     1 - 1/n, ..., 0, each t_min later; it does not start at 1, and is there for comparison (DDIM's own)
        quadratic   evenly in sqrt(t), from 1 to t_min (Song et al. 2021, D.3, arXiv:2010.02502)
        karras      evenly in (sigma / alpha)^(1/7), from t = 1 to t_min (Karras et al. 2022, eq. 5, arXiv:2206.00364)
        log_snr     evenly in log SNR, from t = 1 to t_min (Lu et al. 2022, arXiv:2206.00927)

    The first four are moved to the next step of a discrete schedule; the last two fall between its steps.

    Args:
        schedule: any.
        num_steps: n; None takes all T steps of a discrete schedule.
        spacing: one of the above; None takes the schedule's own.

    Raises:
        ValueError: if `spacing` is unknown, or the schedule cannot take so many steps, or has no finite log SNR at
            t = 1 where the spacing counts in it.
    """
    spacing = spacing or schedule.spacing
    check_spacing(spacing)
    name, most = type(schedule).__name__, schedule.num_timesteps
    n = most if num_steps is None else num_steps
    if n is None:
        raise ValueError(f"{name} is continuous, with no number of steps of its own: set sampler.num_steps=50, say")
    if n < 1 or (most is not None and n > most):
        allowed = "at least 1" if most is None else f"between 1 and {most}, the steps of the schedule"
        raise ValueError(f"cannot take {n} sampling steps: num_steps must be {allowed}")
    done = torch.arange(n, dtype=torch.float64)  # steps already taken
    share = done / max(n - 1, 1)
    one, least = torch.tensor([1.0, schedule.t_min], dtype=torch.float64)
    if spacing in ("karras", "log_snr"):
        first, last = schedule.log_snr(one), schedule.log_snr(least)
        if first == -float("inf"):
            raise ValueError(
                f"spacing={spacing} counts in log SNR, which is infinite at t = 1 for {name}: no signal is left there. "
                "Use sampler.spacing=trailing or uniform"
            )
        if spacing == "karras":
            root = torch.lerp((-first / 2 / RHO).exp(), (-last / 2 / RHO).exp(), share)  # (sigma / alpha)^(1/7)
            times = schedule.time(-2 * RHO * root.log())
        else:
            times = schedule.time(torch.lerp(first, last, share))
        times[0] = 1
    else:
        times = {
            "uniform": torch.lerp(one, least, share),
            "trailing": (n - done) / n,
            "leading": ((n - 1 - done) / n + least).clamp(max=1),
            "quadratic": torch.lerp(one.sqrt(), least.sqrt(), share) ** 2,
        }[spacing]
        times = schedule.snap(times if most is None else times - 1e-12)  # a rounding error must not reach the next step
    if (times.diff() >= 0).any():
        raise ValueError(
            f"{n} steps with spacing={spacing} lie closer than {name} tells times apart near the data (t_min = "
            f"{schedule.t_min:.3g}): take fewer steps, or spacing=uniform"
        )
    return torch.cat([times, times.new_zeros(1)])


def check_spacing(spacing: str) -> None:
    """Raise a ValueError unless `spacing` is one of SPACINGS."""
    if spacing not in SPACINGS:
        raise ValueError(f"sampler.spacing must be one of {', '.join(SPACINGS)}, or null; got {spacing!r}")


def per_image(times: Tensor, x: Tensor) -> Tensor:
    """The times [n] for each image of `x` [B, C, H, W], in its dtype and on its device: [n, B, 1, 1, 1]."""
    return times.to(x).view(-1, 1, 1, 1, 1).expand(-1, len(x), 1, 1, 1)
