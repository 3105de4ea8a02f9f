"""P2 weighting."""

from torch import Tensor

from diffusion_lit.weighting.base import X0Weighting


class P2Weighting(X0Weighting):
    """SNR / (k + SNR)^gamma on the x_0 error (Choi et al. 2022, eq. 8, arXiv:2204.00227).

    The error of eps counts less where the image is nearly clean and only unseen details are left. gamma = 0 is `snr`.

    Args:
        k: keeps the weight finite where no signal is left; a ValueError unless positive.
        gamma: how strongly clean times are played down; a ValueError if negative.
    """

    def __init__(self, k: float = 1.0, gamma: float = 1.0) -> None:
        if k <= 0 or gamma < 0:
            raise ValueError(f"P2 weighting needs k > 0 and gamma >= 0, got k={k}, gamma={gamma}; both are usually 1")
        self.k, self.gamma = k, gamma

    def of_x_0(self, log_snr: Tensor) -> Tensor:
        snr = log_snr.exp()
        return snr / (self.k + snr) ** self.gamma
