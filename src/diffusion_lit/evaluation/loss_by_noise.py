"""The mean of a loss, in total and by noise level."""

import torch
from torch import Tensor
from torchmetrics import Metric

from diffusion_lit.noise_level import LEVELS, NoiseLevels, means_by_level
from diffusion_lit.schedule import Schedule


class LossByNoise(Metric):
    """Means over all images and ranks: `loss`, and `loss_LEVEL` for each level of `NoiseLevels`.

    Args:
        schedule: what the times of losses are times of.
    """

    sums: Tensor

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.levels = NoiseLevels(schedule)
        self.add_state("sums", torch.zeros(2, len(LEVELS)), dist_reduce_fx="sum")

    def update(self, loss: Tensor, t: Tensor) -> None:
        """Take in the losses [B] at the times [B]."""
        # float() since a module in bf16 takes its metrics along, and bf16 cannot count beyond 256
        self.sums = self.sums.float() + self.levels.sums(loss, t)

    def compute(self) -> dict[str, Tensor]:
        """The means, on the host, which reads them often; a level that no time fell into is left out."""
        return means_by_level(self.sums.cpu())
