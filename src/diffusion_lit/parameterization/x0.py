"""The network predicts the clean image."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization

__all__ = ["X0Parameterization"]


class X0Parameterization(Parameterization):
    """F estimates x_0 itself."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(alpha)
        return Coefficients(c_skip=torch.zeros_like(alpha), c_out=one, c_in=one)
