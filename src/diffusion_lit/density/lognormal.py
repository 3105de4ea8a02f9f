"""Times around one noise level."""

from torch import Generator, Tensor

from diffusion_lit.density.base import Density
from diffusion_lit.random import randn_like
from diffusion_lit.schedule import Schedule


class LognormalDensity(Density):
    """log(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, table 1, arXiv:2206.00364).

    Args:
        mean, std: of the logarithm; the paper's are for images in [-1, 1]. A ValueError unless `std` is positive.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"density.std must be positive, got {std}; the paper's is 1.2")
        self.mean, self.std = mean, std

    def forward(self, x_0: Tensor, schedule: Schedule, generator: Generator | None = None) -> Tensor:
        log_noise = self.mean + self.std * randn_like(x_0[:, :1, :1, :1], generator)
        return schedule.time(-2 * log_noise).clamp(max=1).to(x_0.dtype)
