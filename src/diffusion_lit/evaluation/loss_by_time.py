"""The mean of a loss, in total and for each quarter of time."""

import torch
from torch import Tensor
from torchmetrics import Metric


class LossByTime(Metric):
    """Means over all images and ranks: `loss`, and `loss_q1` (t in (0, 1/4], the cleanest) to `loss_q4`."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(4), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(4), dist_reduce_fx="sum")

    def update(self, loss: Tensor, t: Tensor) -> None:
        """Take in the losses [B] at the times [B]."""
        quarter = ((4 * t).ceil() - 1).clamp(0, 3).long()
        loss = loss.float()
        # float() since a module in bf16 takes its metrics along, and bf16 cannot count beyond 256
        self.total = self.total.float().index_add(0, quarter, loss)
        self.count = self.count.float().index_add(0, quarter, torch.ones_like(loss))

    def compute(self) -> dict[str, Tensor]:
        """The means; a quarter that no time fell into is left out."""
        quarters = {f"loss_q{i + 1}": self.total[i] / self.count[i] for i in range(4) if self.count[i] > 0}
        return {"loss": self.total.sum() / self.count.sum(), **quarters}
