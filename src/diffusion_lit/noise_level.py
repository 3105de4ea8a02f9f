"""Losses by how much noise there was: one average hides at which noise level a model fails."""

import torch
from torch import Tensor

from diffusion_lit.schedule import Schedule

__all__ = ["LEVELS", "NoiseLevels", "means_by_level"]

LEVELS = ("least_noise", "less_noise", "more_noise", "most_noise")
"""The levels' names: alphabetical order, in which dashboards sort panels, is the order of noise."""
BOUNDARIES = (4.0, 0.0, -4.0)
"""log SNR where a level ends and the next begins: sigma / alpha = 0.14, 1 and 7.4, on every schedule."""


class NoiseLevels:
    """Sorts the images of a batch by the noise they were given.

    The boundaries are looked up as times of `schedule` once, so that a training step computes no log SNR for them.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.bounds: tuple[Tensor, Tensor] | None = None
        """The times after which each level begins, and with which it ends, [4] each, where they were last used."""

    def sums(self, loss: Tensor, t: Tensor) -> Tensor:
        """By level, the sum of the losses [B] at the times [B] and their number: float32 [2, 4], on their device.

        A loss that is not a number spoils its own level's sum alone.
        """
        if self.bounds is None or self.bounds[0].device != t.device:
            times = self.schedule.time(torch.tensor(BOUNDARIES, dtype=torch.float64)).float()
            infinity = torch.full((1,), torch.inf)
            self.bounds = (torch.cat([-infinity, times]).to(t.device), torch.cat([times, infinity]).to(t.device))
        after, until = self.bounds
        t = t.float()[:, None]
        member = (t > after) & (t <= until)
        return torch.stack([torch.where(member, loss.float()[:, None], 0).sum(0), member.float().sum(0)])


def means_by_level(sums: Tensor) -> dict[str, Tensor]:
    """`loss`, the mean of all, and `loss_LEVEL` of each level that any time fell into, from [2, 4] sums and numbers."""
    total, count = sums
    by_level = zip(LEVELS, total, count, strict=True)
    return {"loss": total.sum() / count.sum(), **{f"loss_{name}": x / n for name, x, n in by_level if n > 0}}
