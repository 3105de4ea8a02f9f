"""The network predicts the velocity of the variance-preserving circle."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization

__all__ = ["VParameterization"]


class VParameterization(Parameterization):
    """F estimates v = alpha eps - sigma x_0, so x_0 = alpha x_t - sigma F (Salimans & Ho 2022, arXiv:2202.00512)."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(c_skip=alpha, c_out=-sigma, c_in=torch.ones_like(alpha))
