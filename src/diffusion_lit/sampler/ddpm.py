"""Ancestral sampling, DDPM's own reverse chain."""

from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from diffusion_lit.denoiser import VARIANCES, BaseDenoiser
from diffusion_lit.sampler.base import Sampler, Walk


@dataclass
class DDPMSampler(Sampler):
    """x_s ~ N(posterior mean, variance), for any pair s < t (Ho et al. 2020, algorithm 2, arXiv:2006.11239).

    Args, besides those of `Sampler`:
        variance: `small`, the posterior's c sigma_s^2 (beta tilde), right for a single known x_0; `large`, c sigma_t^2
            (beta, for one step of the chain), right for standard Gaussian data; or `learned`, by the network, between
            them (Nichol & Dhariwal 2021, eq. 15, arXiv:2102.09672). Any other is a ValueError.
    """

    num_steps: int | None = None
    _: KW_ONLY
    variance: str = "small"
    stochastic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in VARIANCES:
            raise ValueError(f"variance must be small, large or learned, got {self.variance!r}")

    def check(self, denoiser: BaseDenoiser) -> None:
        schedule = denoiser.schedule
        if not schedule.variance_preserving:
            raise ValueError(
                f"sampler=ddpm reverses a chain whose variance stays 1, and {type(schedule).__name__}'s does not: use "
                "sampler=ddim (with sampler.eta=1 for its noise), heun or euler"
            )
        if self.variance == "learned" and not denoiser.learns_variance:
            raise ValueError(
                "sampler.variance=learned needs a network with an output for it, trained with loss=hybrid or vlb and "
                "model.learn_variance=true; this one has none. Use sampler.variance=small or large"
            )
        super().check(denoiser)

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = walk.predict(x_t, t)
        mean, _ = walk.schedule.posterior(p.x_0, x_t, s, t)
        spread = (p.log_variance(s, self.variance) / 2).exp()
        return mean + (s > 0) * spread * walk.noise()  # the last step is its mean (algorithm 2)
