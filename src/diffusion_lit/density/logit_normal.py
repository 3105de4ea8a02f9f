"""Times around the middle of the way."""

from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.random import randn_like
from diffusion_lit.schedule import Schedule


class LogitNormalDensity(Density):
    """log(t / (1 - t)) ~ N(mean, std^2) (Esser et al. 2024, eq. 19, arXiv:2403.03206).

    Args:
        mean, std: of the logit; a mean over 0 prefers noisier times, and `std` must be positive, else a ValueError.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"density.std must be positive, got {std}; the paper's is 1")
        self.mean, self.std = mean, std

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        return (self.mean + self.std * randn_like(x_0[:, :1, :1, :1], generator)).sigmoid()
