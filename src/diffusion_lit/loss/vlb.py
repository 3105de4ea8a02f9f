"""The variational bound, as it is."""

from torch import Tensor

from diffusion_lit.bound import bound_term, require_bytes
from diffusion_lit.denoiser import VARIANCES, Denoiser, Prediction
from diffusion_lit.density import Density
from diffusion_lit.loss.base import Loss


class VLBLoss(Loss):
    """T L_t in bits/dim: its mean over uniform times is the bound without its prior (Nichol & Dhariwal 2021, eq. 4).

    Noisy, and best with density=importance (section 3.3, arXiv:2102.09672).

    Args, besides those of `Loss`:
        variance: variance of the reverse steps: learned, small or large, else a ValueError.
    """

    def __init__(self, density: Density, variance: str = "learned") -> None:
        super().__init__(density)
        if variance not in VARIANCES:
            raise ValueError(f"loss.variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
        self.variance = variance

    def terms(self, p: Prediction, x_0: Tensor) -> dict[str, Tensor]:
        return {"loss": self.bound(p, x_0)}

    def bound(self, p: Prediction, x_0: Tensor) -> Tensor:
        """T times the term of the chain's step down from the prediction's time, [B]."""
        steps = p.schedule.num_timesteps
        assert steps is not None, "checked at start-up"
        s = ((steps * p.t).round() - 1) / steps
        return steps * bound_term(p, x_0, s, self.variance)

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        require_bytes(denoiser.space)
        if denoiser.schedule.num_timesteps is None:
            raise ValueError(
                f"{type(self).__name__} sums over the steps of a chain, and {type(denoiser.schedule).__name__} is "
                "continuous: use loss=mse or uncertainty, or a discrete schedule such as linear or cosine"
            )
        if (self.variance == "learned") != denoiser.learns_variance:
            wanted = "true, so that the network has an output for it" if self.variance == "learned" else "false"
            raise ValueError(
                f"{type(self).__name__} with variance={self.variance} needs model.learn_variance={wanted}; it is "
                f"{str(denoiser.learns_variance).lower()}"
            )
