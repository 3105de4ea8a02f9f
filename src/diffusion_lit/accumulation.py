"""Where in a step a batch is, and the step's figures."""

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

__all__ = ["Accumulation"]


class Accumulation:
    """The batches of a step: those of all ranks, several of each where gradients are accumulated.

    Attributes:
        column: which of the step's batches, over all ranks, the newest is (see `TrainingOrder`).
        place: which of this rank's batches in the step it is, and how many these are.
        step: the step's number in the epoch.
        weight: makes the step's gradient the mean over its batches: Lightning divides the gradient of a short step, as
            an epoch's last may be, by the number of a whole one.
    """

    def __init__(self) -> None:
        self.column, self.place, self.step, self.weight = 0, (0, 1), 0, 1.0
        self.begin: int | None = None
        self.sums: dict[str, Tensor] = {}

    def enter(self, trainer: Trainer, batch_idx: int) -> bool:
        """Go on to the next batch; whether a step begins with it."""
        count = trainer.accumulate_grad_batches
        self.step = batch_idx // count
        if begins := self.begin is None or batch_idx % count == 0:
            self.begin = batch_idx
            self.sums = {}
        assert self.begin is not None
        num = int(min((self.step + 1) * count, trainer.num_training_batches)) - self.begin
        self.place = (batch_idx - self.begin, num)
        self.column = self.place[0] * trainer.world_size + trainer.global_rank
        self.weight = count / num
        return begins

    def add(self, figures: dict[str, Tensor]) -> None:
        """Take the newest batch's figures, scalars by name, into account."""
        for name, figure in figures.items():
            self.sums[name] = self.sums.get(name, 0) + figure.detach()

    def means(self, over_ranks: bool) -> dict[str, Tensor]:
        """The figures' means over this rank's batches of the step, or over all ranks', which call this together."""
        means = torch.stack(list(self.sums.values())) / self.place[1]
        if over_ranks and dist.is_initialized():
            dist.all_reduce(means)
            means /= dist.get_world_size()
        return dict(zip(self.sums, means, strict=True))
