"""Sigmoid weighting."""

from torch import Tensor

from diffusion_lit.weighting.base import X0Weighting


class SigmoidWeighting(X0Weighting):
    """SNR sigmoid(bias - log SNR) on the x_0 error (Kingma & Gao 2023, section 4, arXiv:2303.00848).

    That is sigmoid(bias - log SNR) on the error of eps, the paper's weight where times are uniform in log SNR; another
    density's own shape multiplies it. At log SNR = `bias` it has fallen to a half.
    """

    def __init__(self, bias: float = 2.0) -> None:
        self.bias = bias

    def of_x_0(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp() * (self.bias - log_snr).sigmoid()
