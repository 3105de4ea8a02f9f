"""One term of the variational bound, which losses train on and likelihoods sum."""

import math

import torch
from torch import Tensor

from diffusion_lit.denoiser import Prediction
from diffusion_lit.space import Space

__all__ = ["bound_term", "discretized_gaussian_nll", "gaussian_kl", "require_bytes"]

HALF_BIN = 1 / 255
"""Half the distance of neighbouring pixel values in [-1, 1]."""


def require_bytes(space: Space) -> None:
    """Raise a ValueError unless a model works on 8-bit images, whose probability ends the bound."""
    if not space.bounded:
        raise ValueError(
            f"the variational bound and bits/dim are of 8-bit images, and {space.name} have no such probability: train "
            "with loss=mse or uncertainty; diffusion_lit.likelihood.ode_log_density gives a density"
        )


def bound_term(p: Prediction, x_0: Tensor, s: Tensor, variance: str) -> Tensor:
    """L_t in bits/dim, [B]: what the step from the prediction's time t to `s` costs (Ho et al. 2020, eq. 5).

    KL(q(x_s | x_t, x_0) || p(x_s | x_t)); at s = 0, -log p(x_0 | x_t) of 8-bit images. arXiv:2006.11239.

    Args:
        p: what the model makes of x_t.
        x_0: clean images, multiples of 2 / 255 in [-1, 1], [B, C, H, W].
        s, variance: times before t, [B, 1, 1, 1], and variance of p(x_s | x_t): small, large or learned.
    """
    schedule, x_t, t = p.schedule, p.x_t, p.t
    true_mean, _ = schedule.posterior(x_0, x_t, s, t)
    mean, _ = schedule.posterior(p.x_0, x_t, s, t)
    log_variance = p.log_variance(s, variance)
    terms = gaussian_kl(true_mean, schedule.log_variance(s, t, 0), mean, log_variance).mean((1, 2, 3))
    last = (s == 0).expand(len(x_0), 1, 1, 1)
    rows = to_decode(last.flatten())
    # an image that is decoded without need is given numbers that do no harm
    given = (torch.where(last[rows], value.expand_as(mean)[rows], 0.0) for value in (x_0, mean, log_variance / 2))
    nll = terms.index_copy(0, rows, discretized_gaussian_nll(*given).mean((1, 2, 3)).to(terms.dtype))
    return torch.where(last.flatten(), nll, terms) / math.log(2)


def to_decode(last: Tensor) -> Tensor:
    """The numbers of the images that are decoded, in float64: all of them where to look would make the host wait."""
    return last.nonzero().flatten() if last.device.type == "cpu" else torch.arange(len(last), device=last.device)


def gaussian_kl(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q || p) of two Gaussians in nats, element by element."""
    difference = log_variance_q - log_variance_p
    return (difference.exp() - 1 - difference + (mean_q - mean_p) ** 2 * (-log_variance_p).exp()) / 2


def discretized_gaussian_nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-log of the probability that N(mean, std^2) gives each pixel's bin, in nats (Ho et al. 2020, eq. 13).

    A bin reaches 1 / 255 to either side, that of -1 and 1 to infinity. By the exact normal distribution function, in
    logarithms and in float64: no term is cut off, however unlikely, and each has a slope.
    """
    std = log_std.double().exp()
    low, high = ((x.double() + side - mean) / std for side in (-HALF_BIN, HALF_BIN))
    log_below, log_above = torch.special.log_ndtr(high), torch.special.log_ndtr(-low)
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # the tail that does not round to 1
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    log_within = log_high + torch.log(-torch.expm1(log_low - log_high))
    log_p = torch.where(x < -1 + HALF_BIN, log_below, torch.where(x > 1 - HALF_BIN, log_above, log_within))
    return -log_p.to(mean.dtype)
