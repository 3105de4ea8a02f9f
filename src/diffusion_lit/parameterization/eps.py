"""The network predicts the noise."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization

__all__ = ["EpsParameterization"]


class EpsParameterization(Parameterization):
    """F estimates eps, so x_0 = (x_t - sigma F) / alpha (Ho et al. 2020, eq. 11, arXiv:2006.11239)."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(c_skip=1 / alpha, c_out=-sigma / alpha, c_in=torch.ones_like(alpha))
