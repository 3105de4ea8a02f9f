"""From an image back to the noise that it would be drawn from."""

from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.schedule import per_image, spaced_times

__all__ = ["invert"]


@torch.no_grad()
def invert(
    denoiser: BaseDenoiser,
    x_0: Tensor,
    condition: Condition = UNCONDITIONAL,
    num_steps: int = 50,
    spacing: str | None = None,
    num_iterations: int = 5,
) -> Tensor:
    """The noise from which `DDIMSampler(num_steps, spacing=spacing)` draws `x_0`, [B, C, H, W].

    DDIM's steps backwards (Song et al. 2021, section 4.3, arXiv:2010.02502): x_t is such that the step from it leads to
    x_s. It takes what the model makes of x_t (x_0 where noise prevails, else eps: what depends on x_t least), and so is
    found by iterating: first with x_s in its place, the usual approximation; each further call is nearer to the exact
    inverse.

    Args:
        denoiser, condition: the model, guided or not, in evaluation mode, and what else it is given.
        x_0: images in [-1, 1], [B, C, H, W].
        num_steps, spacing: steps of the walk, and their spacing, as `Sampler`.
        num_iterations: network calls a step.

    Raises:
        ValueError: if `num_iterations` is under 1, or the schedule cannot be walked so.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}; 1 is plain DDIM inversion")
    schedule = denoiser.schedule
    times = per_image(spaced_times(schedule, num_steps, spacing).flip(0), x_0)
    x_s = x_0
    for s, t in pairwise(times):
        x_t, noisy = x_s, bool((schedule.log_snr(t) < 0).all() and (s > 0).all())
        for _ in range(num_iterations):
            p = denoiser(x_t, t, condition)
            if noisy:
                x_t = p.alpha * p.x_0 + p.sigma * (x_s - schedule.alpha(s) * p.x_0) / schedule.sigma(s)
            else:
                x_t = p.alpha * (x_s - schedule.sigma(s) * p.eps) / schedule.alpha(s) + p.sigma * p.eps
        x_s = x_t
    return x_s / schedule.sigma(times[-1])
