"""The network predicts the velocity of the variance-preserving circle."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization


class VParameterization(Parameterization):
    """F estimates v = alpha eps - sigma x_0, so x_0 = alpha x_t - sigma F (Salimans & Ho 2022, arXiv:2202.00512).

    That is on the variance-preserving scale, to which x_t, alpha and sigma are brought by 1 / sqrt(alpha^2 + sigma^2).
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        scale = 1 / torch.hypot(alpha, sigma)
        return Coefficients(c_skip=alpha * scale**2, c_out=-sigma * scale, c_in=scale)
