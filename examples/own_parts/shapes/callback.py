"""A callback of one's own: a figure more in metrics.csv and on every dashboard."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class WeightNorm(Callback):
    """Logs the norm of all weights as `weights/norm`.

    Args:
        every_n_steps: optimizer steps between two figures; a ValueError if it is under 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"callback.weight_norm.every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            pl_module.log("weights/norm", get_total_norm(list(pl_module.parameters())))
