"""EDM's preconditioning."""

import torch
from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization


class EDMParameterization(Parameterization):
    """F estimates the mixture of x_0 and noise that has unit variance and amplifies its errors least.

        c_skip = alpha d^2 / n^2, c_out = sigma d / n, c_in = 1 / n,      n^2 = alpha^2 d^2 + sigma^2, d = sigma_data

    For alpha = 1, Karras et al. 2022, table 1, arXiv:2206.00364; elsewhere the same of x_t / alpha.

    Args:
        sigma_data: the standard deviation of the data's pixels, in [-1, 1]; a ValueError unless positive.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}; 0.5 is usual for images in [-1, 1]")
        self.sigma_data = sigma_data

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        scale = 1 / torch.hypot(alpha * self.sigma_data, sigma)
        return Coefficients(
            c_skip=alpha * (self.sigma_data * scale) ** 2, c_out=sigma * self.sigma_data * scale, c_in=scale
        )
