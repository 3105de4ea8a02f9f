"""No departure from the error in output space."""

import torch
from torch import Tensor

from diffusion_lit.denoiser import Prediction
from diffusion_lit.weighting.base import Weighting


class UnitWeighting(Weighting):
    """w(t) = 1: L_simple for eps (Ho et al. 2020, eq. 14, arXiv:2006.11239), the plain error of v for v."""

    def __call__(self, p: Prediction) -> Tensor:
        return torch.ones_like(p.c_out)
