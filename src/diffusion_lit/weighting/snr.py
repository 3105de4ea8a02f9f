"""SNR weighting."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.weighting.base import Weighting

__all__ = ["SNRWeighting"]


class SNRWeighting(Weighting):
    """SNR on the x_0 error, which is the plain error of eps, whatever the network predicts (Ho et al. 2020, eq. 14)."""

    def __call__(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        return denoiser.schedule.snr(t) * denoiser.coefficients(t).c_out ** 2
