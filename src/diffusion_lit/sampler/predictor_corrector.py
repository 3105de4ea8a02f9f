"""Steps of the reverse SDE, each followed by steps that leave the noise level as it is."""

from torch import Tensor

from diffusion_lit.denoiser import Denoiser
from diffusion_lit.guidance import GuidedDenoiser
from diffusion_lit.sampler.base import History, Noise
from diffusion_lit.sampler.euler_maruyama import EulerMaruyamaSampler

__all__ = ["PredictorCorrectorSampler"]


class PredictorCorrectorSampler(EulerMaruyamaSampler):
    """Euler-Maruyama predicts, Langevin steps correct (Song et al. 2021, algorithms 1 and 4, arXiv:2011.13456).

        x <- x + e score + sqrt(2 e) noise,    e = 2 snr^2 dim / |score|^2

    This size is the same correction in any scaling of x. The paper's for chains (algorithm 5) is alpha_i = 1 - beta_i
    times it, which tends to 1 as steps get shorter: here it depends on the noise level, not on how time is cut. The
    paper averages both norms over the batch. Here |noise|^2 is its expectation, dim, and |score| each image's own.

    Args:
        num_steps: how many steps.
        num_corrections: Langevin steps after each.
        snr: how large they are; the paper's 0.16 leaves a bias of some percent in the variance, smaller ones less.
        clip, percentile, spacing: as `Sampler`.

    Raises:
        ValueError: if `num_corrections` is under 1, `snr` is not positive, or as `Sampler`.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        num_corrections: int = 1,
        snr: float = 0.16,
        clip: float | None = None,
        percentile: float | None = None,
        spacing: str | None = None,
    ) -> None:
        super().__init__(num_steps, clip, percentile, spacing)
        if num_corrections < 1 or snr <= 0:
            raise ValueError(f"need num_corrections >= 1 and snr > 0, got {num_corrections} and {snr}; 1 and 0.16")
        self.num_corrections, self.snr = num_corrections, snr

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
        assert noise is not None
        x_s = super().step(denoiser, x_t, t, s, label, noise)
        for _ in range(self.num_corrections if (s > 0).all() else 0):
            score = self.predict(denoiser, x_s, s, label).score
            size = 2 * self.snr**2 / score.square().mean((1, 2, 3), keepdim=True)
            x_s = x_s + size * score + (2 * size).sqrt() * noise()
        return x_s
