"""The network predicts the noise."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization


class EpsParameterization(Parameterization):
    """F estimates eps, so x_0 = (x_t - sigma F) / alpha (Ho et al. 2020, eq. 11, arXiv:2006.11239).

    The network sees x_t on the variance-preserving scale, which changes nothing where alpha^2 + sigma^2 = 1. Where no
    signal is left (alpha = 0) the noise does not determine x_0.
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(c_skip=1 / alpha, c_out=-sigma / alpha, c_in=1 / torch.hypot(alpha, sigma))
