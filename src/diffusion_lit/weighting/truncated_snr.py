"""Truncated SNR weighting."""

from torch import Tensor

from diffusion_lit.weighting.base import X0Weighting


class TruncatedSNRWeighting(X0Weighting):
    """max(SNR, 1) on the x_0 error: the greater of x_0's and eps' (Salimans & Ho 2022, section 4, arXiv:2202.00512)."""

    def of_x_0(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(min=1)
