"""Denoising diffusion implicit models."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise, Sampler

__all__ = ["DDIMSampler"]


class DDIMSampler(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - spread^2) eps + spread noise (Song et al. 2021, eq. 12, arXiv:2010.02502).

    spread = eta sqrt(posterior variance) (eq. 16): eta = 0 is deterministic, eta = 1 is DDPM with small variance.

    Args:
        num_steps: how many steps; None takes all T of a discrete schedule.
        eta: how much of the posterior's noise to add, in [0, 1].
        clip, percentile, spacing: as `Sampler`; eps is recomputed from the clipped x_0.

    Raises:
        ValueError: if `eta` is outside [0, 1], or as `Sampler`.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        eta: float = 0.0,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        super().__init__(num_steps, clip, percentile, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1] (0 is deterministic, 1 is DDPM), got {eta}")
        self.eta = eta
        self.stochastic = eta > 0

    def step(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        label: Tensor | None = None,
        noise: Noise | None = None,
        history: History | None = None,
    ) -> Tensor:
        schedule = denoiser.schedule
        p = self.predict(denoiser, x_t, t, label)
        if self.eta == 0:
            return schedule.alpha(s) * p.x_0 + schedule.sigma(s) * p.eps
        assert noise is not None
        spread = self.eta * schedule.posterior(p.x_0, x_t, s, t)[1].sqrt()
        remaining = (schedule.sigma(s) ** 2 - spread**2).clamp(min=0).sqrt()  # rounding can make it -1e-9 at eta = 1
        return schedule.alpha(s) * p.x_0 + remaining * p.eps + spread * noise()
