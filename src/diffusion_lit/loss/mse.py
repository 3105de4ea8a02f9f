"""Mean squared error in the network's own output space."""

from torch import Generator, Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.density import Density
from diffusion_lit.loss.base import Loss
from diffusion_lit.random import randn_like
from diffusion_lit.weighting import Weighting

__all__ = ["MSELoss"]


class MSELoss(Loss):
    """w(t) |target - F|^2, averaged over pixels; L_simple with eps and unit weighting (Ho et al. 2020, eq. 14).

    Args:
        density: at which times.
        weighting: how much each time counts.
    """

    def __init__(self, density: Density, weighting: Weighting) -> None:
        self.density = density
        self.weighting = weighting

    def __call__(
        self, denoiser: Denoiser, x_0: Tensor, label: Tensor | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        t = denoiser.schedule.snap(self.density(x_0, generator))  # [B, 1, 1, 1]
        eps = randn_like(x_0, generator)
        x_t = denoiser.schedule.add_noise(x_0, eps, t)
        error = denoiser.target(x_0, x_t, t) - denoiser(x_t, t, label).output
        loss = self.weighting(denoiser, t).flatten() * error.square().mean((1, 2, 3))
        return {"loss": loss, "t": t.flatten()}
