"""The validation loss of the weights as they are, beside that of their average."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lit.callback.average import chosen_average
from diffusion_lit.evaluation import LossByNoise
from diffusion_lit.logger.connector import log_figures
from diffusion_lit.module import DiffusionModule

__all__ = ["RawLoss"]


class RawLoss(Callback):
    """Logs `val/loss_raw`: the raw weights' loss on the images and the noise that the average has `val/loss` on.

    Where the average is ahead, it pays; where it falls behind, its decay is too slow for this run. A validation takes
    twice as long. Without a `WeightAverage`, `val/loss` is of the raw weights, and nothing is done.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self.losses = LossByNoise(pl_module.denoiser.schedule).to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        ema = chosen_average(trainer)
        if ema is None or ema.raw is None or trainer.sanity_checking:
            return
        ema.swap_out(pl_module)
        try:
            terms = pl_module.held_out_losses(batch)
        finally:
            ema.swap_in(pl_module)
        self.losses.update(terms.loss, terms.t)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if chosen_average(trainer) is not None and not trainer.sanity_checking:
            log_figures(trainer, {"val/loss_raw": float(self.losses.compute()["loss"])})
