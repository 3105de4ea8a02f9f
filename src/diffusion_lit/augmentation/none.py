"""Images as they are."""

import torch
from torch import Generator, Tensor

from diffusion_lit.augmentation.base import Augmentation


class NoAugmentation(Augmentation):
    """Nothing is drawn and nothing is done."""

    num_draws = 0
    dim = 0

    def draw(self, generator: Generator) -> Tensor:
        return torch.empty(0, dtype=torch.float32)

    def __call__(self, x_0: Tensor, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        return x_0, None
