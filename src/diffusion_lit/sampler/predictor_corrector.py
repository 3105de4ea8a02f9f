"""Steps of the reverse SDE, each followed by steps that leave the noise level as it is."""

from dataclasses import dataclass

from torch import Tensor

from diffusion_lit.sampler.base import Walk
from diffusion_lit.sampler.euler_maruyama import EulerMaruyamaSampler


@dataclass(kw_only=True)
class PredictorCorrectorSampler(EulerMaruyamaSampler):
    """Euler-Maruyama predicts, Langevin steps correct (Song et al. 2021, algorithms 1 and 4, arXiv:2011.13456).

        x <- x + e score + sqrt(2 e) noise,    e = 2 snr^2 dim / |score|^2

    This size is the same correction in any scaling of x. The paper's for chains (algorithm 5) is alpha_i = 1 - beta_i
    times it, which tends to 1 as steps get shorter: here it depends on the noise level, not on how time is cut. The
    paper averages both norms over the batch. Here |noise|^2 is its expectation, dim, and |score| each image's own.

    Args, besides those of `Sampler`:
        num_corrections: Langevin steps after each; a ValueError under 1.
        snr: how large they are; the paper's 0.16 leaves a bias of some percent in the variance, smaller ones less. A
            ValueError unless positive.
    """

    num_corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_corrections < 1 or self.snr <= 0:
            raise ValueError(
                f"need num_corrections >= 1 and snr > 0, got {self.num_corrections} and {self.snr}; 1 and 0.16"
            )

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_s = super().step(walk, x_t, t, s)
        for _ in range(self.num_corrections if (s > 0).all() else 0):
            score = walk.predict(x_s, s).score
            size = 2 * self.snr**2 / score.square().mean((1, 2, 3), keepdim=True)
            x_s = x_s + size * score + (2 * size).sqrt() * walk.noise()
        return x_s
