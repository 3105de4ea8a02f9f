"""L_hybrid of Improved DDPM."""

from dataclasses import replace

from torch import Generator, Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density
from diffusion_lit.loss.mse import MSELoss
from diffusion_lit.loss.vlb import VLBLoss
from diffusion_lit.random import randn_like
from diffusion_lit.weighting import Weighting

__all__ = ["HybridLoss"]


class HybridLoss(VLBLoss):
    """The squared error trains the mean, 0.001 of the bound the variance (Nichol & Dhariwal 2021, eq. 16).

    The mean is held fixed in the bound. arXiv:2102.09672.

    Args:
        density: at which times.
        weighting: of the squared error.
        huber: as `MSELoss`.
        scale: what the bound, in bits/dim over all T steps, is multiplied by.

    Raises:
        ValueError: if `scale` is not positive.
    """

    def __init__(
        self, density: Density, weighting: Weighting, huber: float | None = None, scale: float = 0.001
    ) -> None:
        super().__init__(density, "learned")
        if scale <= 0:
            raise ValueError(f"loss.scale must be positive, got {scale}; the paper's is 0.001")
        self.simple = MSELoss(density, weighting, huber)
        self.scale = scale

    def forward(
        self, denoiser: Denoiser, x_0: Tensor, label: Tensor | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        schedule = denoiser.schedule
        t = schedule.snap(self.density(x_0, schedule, generator))  # [B, 1, 1, 1]
        x_t = schedule.add_noise(x_0, randn_like(x_0, generator), t)
        p = denoiser(x_t, t, label)
        mse = self.simple.error(denoiser, denoiser.target(x_0, x_t, t), p.output, t)
        bound = self.bound(denoiser, replace(p, x_0=p.x_0.detach()), x_0, t)
        loss = mse + self.scale * bound
        self.density.record(t, loss)
        correction = self.density.correction(t.flatten())
        return {"loss": loss * correction, "mse": mse * correction, "bound": bound * correction, "t": t.flatten()}
