"""Truncated SNR weighting."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.weighting.base import Weighting

__all__ = ["TruncatedSNRWeighting"]


class TruncatedSNRWeighting(Weighting):
    """max(SNR, 1) on the x_0 error: the greater of x_0's and eps' (Salimans & Ho 2022, section 4, arXiv:2202.00512)."""

    def __call__(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        return denoiser.schedule.snr(t).clamp(min=1) * denoiser.coefficients(t).c_out ** 2
