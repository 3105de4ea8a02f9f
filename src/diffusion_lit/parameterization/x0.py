"""The network predicts the clean image."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization


class X0Parameterization(Parameterization):
    """F estimates x_0 itself, from x_t on the variance-preserving scale."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(
            c_skip=torch.zeros_like(alpha), c_out=torch.ones_like(alpha), c_in=1 / torch.hypot(alpha, sigma)
        )
