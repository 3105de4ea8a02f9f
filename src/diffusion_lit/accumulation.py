"""Where in a step a batch is."""

from lightning.pytorch import Trainer

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

    def enter(self, trainer: Trainer, batch_idx: int) -> bool:
        """Go on to the next batch; whether a step begins with it."""
        count = trainer.accumulate_grad_batches
        self.step = batch_idx // count
        if begins := self.begin is None or batch_idx % count == 0:
            self.begin = batch_idx
        assert self.begin is not None
        num = int(min((self.step + 1) * count, trainer.num_training_batches)) - self.begin
        self.place = (batch_idx - self.begin, num)
        self.column = self.place[0] * trainer.world_size + trainer.global_rank
        self.weight = count / num
        return begins

    @property
    def ends_step(self) -> bool:
        """Whether the newest batch is the step's last."""
        return self.place[0] + 1 == self.place[1]
