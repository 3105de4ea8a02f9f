"""UniPC, a predictor-corrector that costs one network call a step."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion_lit.denoiser import Prediction
from diffusion_lit.sampler.base import Sampler, Walk


@dataclass(kw_only=True)
class UniPCSampler(Sampler):
    """UniPC-p with B_2(h) = e^h - 1, predicting x_0 (Zhao et al. 2023, algorithms 5 to 8, arXiv:2302.04867).

    What the network says at x_t first corrects the step that led there (UniC), then predicts the next (UniP).

    Args, besides those of `Sampler`:
        order: p, 1 to 3, else a ValueError; with the corrector, the order of accuracy is p + 1.
    """

    order: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3):
            raise ValueError(f"sampler.order must be 1, 2 or 3, got {self.order}")

    @property
    def num_previous(self) -> int:
        return self.order

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = walk.predict(x_t, t)
        if walk.history:
            p = replace(p, x_t=advance(list(walk.history), t, p.x_0))
        steps = [*walk.history, p][-self.order :]
        walk.remember(p)
        return advance(steps if (s > 0).all() else [p], s)


def advance(steps: list[Prediction], s: Tensor, x_0: Tensor | None = None) -> Tensor:
    """x_s from the last of `steps` and the estimates of x_0 in all of them; with `x_0`, that at `s`, too."""
    p = steps[-1]
    alpha, sigma, log_snr = p.schedule.coefficients(s)
    here = p.log_snr / 2
    h = log_snr / 2 - here
    places = [(q.log_snr / 2 - here) / h for q in reversed(steps[:-1])]
    others = [q.x_0 for q in reversed(steps[:-1])]
    if x_0 is not None:
        places.append(torch.ones_like(h))
        others.append(x_0)
    bend = torch.zeros_like(p.x_0)
    for weight, place, other in zip(weights(places, h), places, others, strict=True):
        bend = bend + (weight / place).to(bend.dtype) * (other - p.x_0)
    drift = (alpha * torch.expm1(-h)).to(bend.dtype)
    return sigma / p.sigma * p.x_t - drift * (p.x_0 + bend)


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
