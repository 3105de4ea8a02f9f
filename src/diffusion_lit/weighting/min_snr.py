"""Min-SNR-gamma weighting."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.weighting.base import Weighting

__all__ = ["MinSNRWeighting"]


class MinSNRWeighting(Weighting):
    """min(SNR, gamma) on the x_0 error (Hang et al. 2023, section 3.4, arXiv:2303.09556).

    In output space: min(1, gamma / SNR) for eps, min(SNR, gamma) / (SNR + 1) for v.

    Args:
        gamma: the SNR above which easy, nearly clean times stop counting for more.

    Raises:
        ValueError: if `gamma` is not positive.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"min-SNR weighting needs gamma > 0, got {gamma}; the paper's choice is 5")
        self.gamma = gamma

    def __call__(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        c_out = denoiser.coefficients(t).c_out
        return denoiser.schedule.snr(t).clamp(max=self.gamma) * c_out**2
