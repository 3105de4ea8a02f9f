"""Mirror images."""

import torch
from torch import Generator, Tensor

from diffusion_lit.augmentation.base import Augmentation


class FlipAugmentation(Augmentation):
    """Left to right, half of the time, unseen by the network: for images whose mirror images are as likely."""

    num_draws = 1
    dim = 0

    def draw(self, generator: Generator) -> Tensor:
        return (torch.rand(1, generator=generator, dtype=torch.float32) < 0.5).float()

    def __call__(self, x_0: Tensor, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        return mirror(x_0, draws[:, 0], dim=-1), None


def mirror(x_0: Tensor, mirrored: Tensor, dim: int) -> Tensor:
    """The images [B, C, H, W], those where `mirrored` [B] is 1 and not 0 turned round along `dim`."""
    return torch.where(mirrored.view(-1, 1, 1, 1) > 0.5, x_0.flip(dim), x_0)
