"""Denoising diffusion implicit models."""

from dataclasses import dataclass

from torch import Tensor

from diffusion_lit.sampler.base import Sampler, Walk


@dataclass(kw_only=True)
class DDIMSampler(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - spread^2) eps + spread noise (Song et al. 2021, eq. 12, arXiv:2010.02502).

    spread = eta sqrt(posterior variance) (eq. 16): eta = 0 is deterministic, eta = 1 is DDPM with small variance. Where
    x_0 is clipped, eps is recomputed from it.

    Args, besides those of `Sampler`:
        eta: how much of the posterior's noise to add; a ValueError outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1] (0 is deterministic, 1 is DDPM), got {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        schedule, p = walk.schedule, walk.predict(x_t, t)
        alpha, sigma, _ = schedule.coefficients(s)
        if not self.stochastic:
            return alpha * p.x_0 + sigma * p.eps
        spread = self.eta * schedule.posterior(p.x_0, x_t, s, t)[1].sqrt()
        remaining = (sigma**2 - spread**2).clamp(min=0).sqrt()  # rounding can make it -1e-9 at eta = 1
        return alpha * p.x_0 + remaining * p.eps + spread * walk.noise()
