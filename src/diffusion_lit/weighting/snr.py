"""SNR weighting."""

from torch import Tensor

from diffusion_lit.weighting.base import X0Weighting


class SNRWeighting(X0Weighting):
    """SNR on the x_0 error, which is the plain error of eps, whatever the network predicts (Ho et al. 2020, eq. 14)."""

    def of_x_0(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp()
