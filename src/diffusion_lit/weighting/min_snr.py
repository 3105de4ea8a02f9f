"""Min-SNR-gamma weighting."""

from torch import Tensor

from diffusion_lit.weighting.base import X0Weighting


class MinSNRWeighting(X0Weighting):
    """min(SNR, gamma) on the x_0 error (Hang et al. 2023, section 3.4, arXiv:2303.09556).

    In output space: min(1, gamma / SNR) for eps, min(SNR, gamma) / (SNR + 1) for v.

    Args:
        gamma: the SNR above which easy, nearly clean times stop counting for more; a ValueError unless positive.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"min-SNR weighting needs gamma > 0, got {gamma}; the paper's choice is 5")
        self.gamma = gamma

    def of_x_0(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)
