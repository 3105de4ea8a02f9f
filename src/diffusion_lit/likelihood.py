"""How likely a model holds images to be, in bits/dim: the variational bound, and the ODE's own value."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lit.bound import HALF_BIN, bound_term, discretized_gaussian_nll, gaussian_kl, require_bytes
from diffusion_lit.condition import UNCONDITIONAL, Condition
from diffusion_lit.denoiser import VARIANCES, BaseDenoiser
from diffusion_lit.ode import angle, at_angle, integrate, velocity
from diffusion_lit.schedule import per_image, spaced_times

__all__ = ["Bound", "Likelihood", "ode_likelihood", "ode_log_density", "variational_bound"]


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p(x_0), in bits/dim."""

    prior: Tensor
    """KL(q(x_T | x_0) || p(x_T)), [B]."""
    terms: Tensor
    """L_t of each step from the noisiest on; the last is the decoder's, -log p(x_0 | x_t), [B, num_steps]."""

    @property
    def total(self) -> Tensor:
        """The bound, [B]."""
        return self.prior + self.terms.sum(1)


@dataclass(frozen=True)
class Likelihood:
    """-log2 p(x_0) / D of each image, in bits/dim [B]; each an estimate, their mean with a standard error."""

    bits_per_dim: Tensor

    @property
    def mean(self) -> float:
        return float(self.bits_per_dim.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, over images, dequantisation and probes together; NaN for a single image."""
        num = len(self.bits_per_dim)
        return float(self.bits_per_dim.std() / math.sqrt(num)) if num > 1 else math.nan


@torch.no_grad()
def variational_bound(
    denoiser: BaseDenoiser,
    x_0: Tensor,
    noise: Callable[[], Tensor],
    condition: Condition = UNCONDITIONAL,
    num_steps: int | None = None,
    variance: str = "small",
    clip: float | None = None,
) -> Bound:
    """The bound of the reverse chain with `num_steps` steps, one draw of x_t for each (Ho et al. 2020, eq. 5).

    It falls with the number of steps where the variance suits the data: learned in general, large for Gaussian data (to
    about 0.15 bits/dim, what its decoder's small variance costs there). Small is too small for any but a single image,
    most of all near the data, and so stays about a bit above.

    Args:
        denoiser, condition: the model, in evaluation mode, and what else it is given.
        x_0: 8-bit images as multiples of 2 / 255 in [-1, 1], [B, C, H, W].
        noise: gives standard Gaussian noise like `x_0`, once for each step.
        num_steps: steps of the chain; None takes all T of a discrete schedule.
        variance: variance of its steps: small, large or learned.
        clip: the limit that each estimate of x_0 is held to, or None.

    Raises:
        ValueError: if the schedule cannot take `num_steps`, the model does not have such a variance, or is of latents.
    """
    require_bytes(denoiser.space)
    if variance not in VARIANCES or (variance == "learned" and not denoiser.learns_variance):
        raise ValueError(
            f"this model does not have variance={variance}; choose small or large"
            + (", or learned" if denoiser.learns_variance else " (learned needs model.learn_variance=true)")
        )
    schedule = denoiser.schedule
    times = per_image(spaced_times(schedule, num_steps), x_0)
    alpha, log_variance = schedule.alpha(times[0]), 2 * schedule.sigma(times[0]).log()
    prior = gaussian_kl(alpha * x_0, log_variance, torch.zeros_like(x_0), log_variance)
    terms = []
    for t, s in pairwise(times):
        p = denoiser(schedule.add_noise(x_0, noise(), t), t, condition)
        terms.append(bound_term(p if clip is None else p.clip(clip), x_0, s, variance))
    return Bound(prior.mean((1, 2, 3)) / math.log(2), torch.stack(terms, dim=1))


@torch.no_grad()
def ode_likelihood(
    denoiser: BaseDenoiser,
    x_0: Tensor,
    noise: Callable[[], Tensor],
    condition: Condition = UNCONDITIONAL,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    """-log2 P of 8-bit images by the probability-flow ODE, from above in expectation (Song et al. 2021, section 4.3).

        -log P(x_0) <= E[log q(x_t | x_0) - log p(x_t) - log P(x_0 | x_t)],    x_t = alpha (x_0 + u) + sigma eps

    with u uniform in the bin of x_0, p(x_t) by the ODE, its trace by one Rademacher probe an image, and P(x_0 | x_t)
    the bins of N(E[x_0 | x_t], (sigma / alpha)^2). The flow starts at half a bin, sigma / alpha = 1 / 255, or at t_min
    if that is later: at less noise an exact density is one of separate levels, which x_0 + u misses (Zheng et al. 2023,
    arXiv:2305.03935). An exact model's figure is too high by 0.001 bits/dim where neighbouring levels are about as
    likely, by 0.6 where a pixel is certain (0.3 if black or white); from 1.3 bins, as of `vp`, by 1.8 (0.6).

    Args:
        denoiser, condition, x_0: as `variational_bound`.
        noise: gives standard Gaussian noise like `x_0`: for u, eps and the probe.
        rtol, atol: tolerances of the solver.

    Raises:
        ValueError: if the model is of latents.
    """
    require_bytes(denoiser.space)
    schedule = denoiser.schedule
    half_a_bin = torch.full_like(x_0[:, :1, :1, :1], -2 * math.log(HALF_BIN), dtype=torch.float64)  # as log SNR
    t = schedule.time(half_a_bin).clamp(min=schedule.t_min).to(x_0.dtype)
    log_std = (-schedule.log_snr(t) / 2).to(x_0.dtype).expand_as(x_0)
    offset = 2 * HALF_BIN * (torch.special.ndtr(noise()) - 0.5) + log_std.exp() * noise()
    log_density = ode_log_density(denoiser, x_0 + offset, noise().sign(), condition, rtol, atol, float(t[0]))
    decoded = denoiser(schedule.alpha(t) * (x_0 + offset), t, condition).x_0
    nll = discretized_gaussian_nll(x_0, decoded, log_std) - discretized_gaussian_nll(0 * x_0, offset, log_std)  # -log q
    return Likelihood((nll.mean((1, 2, 3)) - log_density / x_0[0].numel() - math.log(2 * HALF_BIN)) / math.log(2))


@torch.no_grad()
def ode_log_density(
    denoiser: BaseDenoiser,
    x_0: Tensor,
    probe: Tensor | None = None,
    condition: Condition = UNCONDITIONAL,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    start: float | None = None,
) -> Tensor:
    """log p(x_0) of continuous images in nats, [B] (Song et al. 2021, eq. 39, arXiv:2011.13456; v is the velocity).

    Args:
        denoiser, condition: the model, in evaluation mode, and what else it is given.
        x_0: images [B, C, H, W].
        probe: noise of mean 0 and variance 1, like `x_0`, that estimates the trace; None computes it exactly, with a
            backward pass for each of the C H W dimensions.
        rtol, atol: as `ode_likelihood`.
        start: the time t at which the flow starts, from x_0 as x_t / alpha; None takes the least the network knows.
    """
    schedule, shape, dim = denoiser.schedule, x_0.shape, x_0[0].numel()
    ends = x_0.new_tensor([schedule.t_min if start is None else start, 1], dtype=torch.float64)
    first, last = angle(schedule, ends)[:, None].expand(-1, len(x_0))

    def derivative(phi: Tensor, y: Tensor) -> Tensor:
        """Of x on the variance-preserving scale, and of minus its log density."""
        x = y[:, :-1].view(shape)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            t, x_t = at_angle(schedule, phi, x)
            x_0_hat = denoiser(x_t, t, condition).x_0
            trace = exact_trace(x_0_hat, x) if probe is None else probed_trace(x_0_hat, x, probe)
        divergence = (dim * torch.cos(phi).to(x.dtype) - trace) / torch.sin(phi).to(x.dtype)
        return torch.cat([velocity(phi, x, x_0_hat).flatten(1), divergence[:, None]], dim=1).detach()

    scale = torch.cos(first).to(x_0.dtype)
    y = torch.cat([scale[:, None] * x_0.flatten(1), x_0.new_zeros(len(x_0), 1)], dim=1)
    y = integrate(derivative, y, first, last, rtol, atol)
    std = torch.sin(last).to(x_0.dtype)
    prior = -y[:, :-1].square().sum(1) / (2 * std**2) - dim * (std * math.sqrt(2 * math.pi)).log()
    return prior + y[:, -1] + dim * scale.log()


def probed_trace(output: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    """probe^T J probe of each image's Jacobian J, whose mean is the trace (Hutchinson 1989), [B]."""
    (product,) = torch.autograd.grad(output, x, probe)
    return (product * probe).flatten(1).sum(1)


def exact_trace(output: Tensor, x: Tensor) -> Tensor:
    """The trace of each image's Jacobian, one dimension after the other, [B]."""
    flat, trace = output.flatten(1), x.new_zeros(len(x))
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        trace += row.flatten(1)[:, i]
    return trace
