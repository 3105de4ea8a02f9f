"""Ancestral sampling, DDPM's own reverse chain."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser, GuidedDenoiser
from diffusion_lit.sampler.base import Sampler

__all__ = ["DDPMSampler"]


class DDPMSampler(Sampler):
    """x_s ~ N(posterior mean, variance), for any pair s < t (Ho et al. 2020, algorithm 2, arXiv:2006.11239).

    Args:
        num_steps: how many steps; None takes all T of a discrete schedule.
        variance: `small`, the posterior's c sigma_s^2 (beta tilde), right for a single known x_0; or `large`,
            c sigma_t^2 (beta, for one step of the chain), right for standard Gaussian data.
        clip: the limit that each estimate of x_0 is held to, or None.

    Raises:
        ValueError: if `variance` is neither, or as `Sampler`.
    """

    stochastic = True

    def __init__(self, num_steps: int | None = None, variance: str = "small", clip: float | None = None) -> None:
        super().__init__(num_steps, clip)
        if variance not in ("small", "large"):
            raise ValueError(f"variance must be small or large, got {variance!r}")
        self.variance = variance

    def step(
        self,
        denoiser: Denoiser | GuidedDenoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        label: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        assert noise is not None
        schedule = denoiser.schedule
        p = self.predict(denoiser, x_t, t, label)
        mean, variance = schedule.posterior(p.x_0, x_t, s, t)
        if self.variance == "large":
            variance = (
                schedule.denoised_fraction(s, t) * p.sigma**2 * (s > 0)
            )  # the last step is its mean (algorithm 2)
        return mean + variance.sqrt() * noise
