"""How far a step moves the weights."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from diffusion_lit.distributed.sharding import own_parameters, unsharded
from diffusion_lit.module import DiffusionModule

__all__ = ["UpdateRatio"]


class UpdateRatio(Callback):
    """Logs `train/update_ratio`: |w after - w before| / |w before| of the step at a point of the training curves.

    1e-4 to 3e-3 is usual; 1e-2 and more is too high a learning rate. The weights are copied once for such a step, and
    only then.

    Args:
        enabled: whether it does anything.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.before: list[Tensor] = []

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.enabled and every > 0 and (trainer.global_step + 1) % every == 0:
            self.before = [p.clone() for p in own_parameters(pl_module).values()]

    @torch.no_grad()
    def training_figures(self, trainer: Trainer, module: DiffusionModule) -> dict[str, float]:
        """Called by the module with each point of its curves, on all ranks."""
        if not self.before:
            return {}
        before, self.before = self.before, []
        moved = torch._foreach_sub(list(own_parameters(module).values()), before)
        change, size = (torch.stack([unsharded(n) for n in torch._foreach_norm(w)]).norm() for w in (moved, before))
        return {"train/update_ratio": float(change / size)}
