"""L_hybrid of Improved DDPM."""

from dataclasses import replace

from torch import Tensor

from diffusion_lit.denoiser import Prediction
from diffusion_lit.density import Density
from diffusion_lit.loss.mse import checked_huber, weighted_error
from diffusion_lit.loss.vlb import VLBLoss
from diffusion_lit.weighting import Weighting


class HybridLoss(VLBLoss):
    """The squared error trains the mean, 0.001 of the bound the variance (Nichol & Dhariwal 2021, eq. 16).

    The mean is held fixed in the bound. arXiv:2102.09672.

    Args, besides those of `MSELoss`:
        scale: factor of the bound, in bits/dim over all T steps; a ValueError unless positive.
    """

    def __init__(self, density: Density, weighting: Weighting, huber: float | None = None, scale: float = 1e-3) -> None:
        super().__init__(density, "learned")
        if scale <= 0:
            raise ValueError(f"loss.scale must be positive, got {scale}; the paper's is 0.001")
        self.weighting, self.huber, self.scale = weighting, checked_huber(huber), scale

    def terms(self, p: Prediction, x_0: Tensor) -> dict[str, Tensor]:
        mse = weighted_error(p, x_0, self.weighting, self.huber)
        bound = self.bound(replace(p, x_0=p.x_0.detach()), x_0)
        return {"loss": mse + self.scale * bound, "mse": mse, "bound": bound}
