"""Mean squared error in the network's own output space."""

import torch.nn.functional as F
from torch import Tensor

from diffusion_lit.denoiser import Denoiser, Prediction
from diffusion_lit.density import Density
from diffusion_lit.loss.base import Loss
from diffusion_lit.weighting import Weighting


class MSELoss(Loss):
    """w(t) |target - F|^2, averaged over pixels; L_simple with eps and unit weighting (Ho et al. 2020, eq. 14).

    Args, besides those of `Loss`:
        weighting: how much each time counts.
        huber: the error beyond which its square continues as a straight line (twice Huber's loss); None disables it.
            A ValueError unless positive.
    """

    def __init__(self, density: Density, weighting: Weighting, huber: float | None = None) -> None:
        super().__init__(density)
        self.weighting, self.huber = weighting, checked_huber(huber)

    def terms(self, p: Prediction, x_0: Tensor) -> dict[str, Tensor]:
        return {"loss": weighted_error(p, x_0, self.weighting, self.huber)}

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if denoiser.learns_variance:
            raise ValueError(
                f"model.learn_variance=true, but {type(self).__name__} does not train it: use loss=hybrid, or "
                "model.learn_variance=false"
            )


def checked_huber(huber: float | None) -> float | None:
    """Return `huber` if it is positive or None, else raise a ValueError."""
    if huber is not None and huber <= 0:
        raise ValueError(f"loss.huber is an error in the network's output and must be positive, got {huber}")
    return huber


def weighted_error(p: Prediction, x_0: Tensor, weighting: Weighting, huber: float | None) -> Tensor:
    """w(t) times the squared, or twice Huber's, error of the output, averaged over pixels, [B]."""
    target = p.target(x_0)
    if huber is None:
        error = (target - p.output).square()
    else:
        error = 2 * F.huber_loss(p.output, target, reduction="none", delta=huber)
    return weighting(p).flatten() * error.mean((1, 2, 3))
