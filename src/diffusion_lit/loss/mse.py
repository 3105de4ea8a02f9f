"""Mean squared error in the network's own output space."""

import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.density import Density
from diffusion_lit.loss.base import Loss
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
        self.weighting = weighting
        self.huber = positive(huber)

    def terms(self, denoiser: Denoiser, p: Prediction, x_0: Tensor, t: Tensor) -> dict[str, Tensor]:
        return {"loss": weighted_error(denoiser, p, x_0, t, self.weighting, self.huber)}

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if denoiser.learns_variance:
            raise ValueError(
                f"model.learn_variance=true, but {type(self).__name__} does not train it: use loss=hybrid, or "
                "model.learn_variance=false"
            )


def positive(huber: float | None) -> float | None:
    """`huber`, unless it is no size of an error.

    Raises:
        ValueError: then.
    """
    if huber is not None and huber <= 0:
        raise ValueError(f"loss.huber is an error in the network's output and must be positive, got {huber}")
    return huber


def weighted_error(
    denoiser: Denoiser, p: Prediction, x_0: Tensor, t: Tensor, weighting: Weighting, huber: float | None
) -> Tensor:
    """w(t) times the squared, or twice Huber's, error of the output, averaged over pixels, [B]."""
    target = denoiser.target(x_0, p.x_t, t)
    if huber is None:
        error = (target - p.output).square()
    else:
        error = 2 * F.huber_loss(p.output, target, reduction="none", delta=huber)
    return weighting(denoiser, t).flatten() * error.mean((1, 2, 3))
