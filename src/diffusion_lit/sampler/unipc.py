"""UniPC, a predictor-corrector that costs one network call a step."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise, Sampler, remember
from diffusion_lit.schedule import Schedule

__all__ = ["UniPCSampler"]


class UniPCSampler(Sampler):
    """UniPC-p with B_2(h) = e^h - 1, predicting x_0 (Zhao et al. 2023, algorithms 5 to 8, arXiv:2302.04867).

    What the network says at x_t first corrects the step that led there (UniC), then predicts the next (UniP).

    Args:
        num_steps: how many steps.
        order: p, 1 to 3; with the corrector, the order of accuracy is p + 1.
        clip, percentile, spacing: as `Sampler`.

    Raises:
        ValueError: if `order` is not 1, 2 or 3, or as `Sampler`.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        order: int = 2,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        super().__init__(num_steps, clip, percentile, spacing)
        if order not in (1, 2, 3):
            raise ValueError(f"sampler.order must be 1, 2 or 3, got {order}")
        self.num_previous = order

    def step(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        label: Tensor | None = None,
        noise: Noise | None = None,
        history: History | None = None,
    ) -> Tensor:
        schedule = denoiser.schedule
        p = self.predict(denoiser, x_t, t, label)
        if history:
            p = replace(p, x_t=advance(schedule, list(history), t, p.x_0))
        steps = [*(history or []), (t, p)][-self.num_previous :]
        remember(history, schedule, t, p)
        return advance(schedule, steps if (s > 0).all() else [(t, p)], s)


def advance(schedule: Schedule, steps: list[tuple[Tensor, Prediction]], s: Tensor, x_0: Tensor | None = None) -> Tensor:
    """x_s from the last of `steps` and the estimates of x_0 in all of them; with `x_0`, that at `s`, too."""
    t, p = steps[-1]
    here = schedule.log_snr(t) / 2
    h = schedule.log_snr(s) / 2 - here
    places = [(schedule.log_snr(r) / 2 - here) / h for r, _ in reversed(steps[:-1])]
    others = [q.x_0 for _, q in reversed(steps[:-1])]
    if x_0 is not None:
        places.append(torch.ones_like(h))
        others.append(x_0)
    bend = torch.zeros_like(p.x_0)
    for weight, place, other in zip(weights(places, h), places, others, strict=True):
        bend = bend + (weight / place).to(bend.dtype) * (other - p.x_0)
    drift = (schedule.alpha(s) * torch.expm1(-h)).to(bend.dtype)
    return schedule.sigma(s) / p.sigma * p.x_t - drift * (p.x_0 + bend)


def weights(places: list[Tensor], h: Tensor) -> list[Tensor]:
    """What the slope to each of `places` counts; for a single one the paper takes 1/2, the limit of small h.

    sum_k places_k^(i - 1) w_k = i! phi_{i+1}(-h) / phi_1(-h),      i = 1, 2, ...
    """
    if len(places) < 2:
        return [torch.full_like(h, 0.5) for _ in places]
    powers, moments = [], []
    first = phi = torch.expm1(-h) / -h  # phi_1(-h)
    for i in range(1, len(places) + 1):
        phi = (phi - 1 / math.factorial(i)) / -h  # phi_{i+1}(z) = (phi_i(z) - 1 / i!) / z
        moments.append(math.factorial(i) * phi / first)
        powers.append(torch.stack([place ** (i - 1) for place in places], -1))
    return list(torch.linalg.solve(torch.stack(powers, -2), torch.stack(moments, -1)).unbind(-1))
