"""Mean squared error in the network's own output space."""

import torch.nn.functional as F
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
        huber: the error beyond which its square goes on as a straight line (twice Huber's loss); None is never.

    Raises:
        ValueError: if `huber` is not positive.
    """

    def __init__(self, density: Density, weighting: Weighting, huber: float | None = None) -> None:
        super().__init__(density)
        if huber is not None and huber <= 0:
            raise ValueError(f"loss.huber is an error in the network's output and must be positive, got {huber}")
        self.weighting = weighting
        self.huber = huber

    def forward(
        self, denoiser: Denoiser, x_0: Tensor, label: Tensor | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        t = denoiser.schedule.snap(self.density(x_0, denoiser.schedule, generator))  # [B, 1, 1, 1]
        x_t = denoiser.schedule.add_noise(x_0, randn_like(x_0, generator), t)
        loss = self.error(denoiser, denoiser.target(x_0, x_t, t), denoiser(x_t, t, label).output, t)
        self.density.record(t, loss)
        return {"loss": loss * self.density.correction(t.flatten()), "t": t.flatten()}

    def error(self, denoiser: Denoiser, target: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The weighted error of each image, [B]."""
        if self.huber is None:
            error = (target - output).square()
        else:
            error = 2 * F.huber_loss(output, target, reduction="none", delta=self.huber)
        return self.weighting(denoiser, t).flatten() * error.mean((1, 2, 3))

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if denoiser.learns_variance:
            raise ValueError(
                f"model.learn_variance=true, but {type(self).__name__} does not train it: use loss=hybrid, or "
                "model.learn_variance=false"
            )
