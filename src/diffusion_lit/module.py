"""Training, as Lightning wants it: wiring only."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from diffusion_lit.accumulation import Accumulation
from diffusion_lit.augmentation import Augmentation
from diffusion_lit.budget import budget_of
from diffusion_lit.conditioning import check_augmentation, check_hidden_classes, check_labelled
from diffusion_lit.data import Batch, ImageDataModule
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.distributed.hybrid_shard import HybridShardStrategy
from diffusion_lit.distributed.sharding import shard, unsharded
from diffusion_lit.evaluation import LossByNoise
from diffusion_lit.execution import Execution
from diffusion_lit.logger.training_figures import TrainingFigures
from diffusion_lit.logger.training_log import log_point, log_sizes
from diffusion_lit.loss import Loss, LossTerms
from diffusion_lit.lr_schedule import LRSchedule
from diffusion_lit.model.magnitude import force_unit_weights
from diffusion_lit.optimizer import build_optimizer, refresh
from diffusion_lit.random import fold_in, seed_default_generators

__all__ = ["DiffusionModule"]


class DiffusionModule(LightningModule):
    """Minimises `loss` of `denoiser`.

    Training noise is a function of (seed, column, step), where a step's columns are its batches, on whichever rank each
    is: several ranks and accumulated gradients are the same training, and a resumed run never replays noise. On a CPU,
    whose generator keeps 32 bits, about 19 pairs among the 400,000 batches of 8 columns by 50,000 steps have the same
    noise by chance; on CUDA, which keeps 64, none have. What is logged is the mean over all steps since the last point.

    Validation noise is the same at every validation, so that its curve shows the model and not the draw.

    Args:
        denoiser, loss: the model, and what is minimised.
        optimizer: parameters -> optimizer; one that takes `matrices` too gets the network's.
        lr_schedule: what the optimizer's learning rate is multiplied by at each step.
        label_dropout: the probability of training an image without its class, for classifier-free guidance
            (Ho & Salimans 2022, algorithm 1, arXiv:2207.12598).
        seed: seed of the noise.
        augmentation: augmentation of training images, by what the data module drew for them; None disables it.
        execution: how the network is run; None runs it as it is.

    Raises:
        ValueError: if `label_dropout` is not in [0, 1), or the loss or the augmentation does not suit the denoiser.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        loss: Loss,
        optimizer: Callable[..., Optimizer],
        lr_schedule: LRSchedule,
        label_dropout: float = 0.1,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout is a probability in [0, 1), got {label_dropout}; 0.1 is usual")
        check_hidden_classes(label_dropout, denoiser)
        loss.check(denoiser)
        if augmentation is not None:
            check_augmentation(augmentation, denoiser)
        self.denoiser, self.loss, self.augmentation = denoiser, loss, augmentation
        self.optimizer, self.lr_schedule = optimizer, lr_schedule
        self.label_dropout, self.seed, self.execution = label_dropout, seed, execution
        self.record: dict[str, Any] = {}
        """What a checkpoint says of the run (see `diffusion_lit.checkpoint`)."""
        self.forgets_optimizer = False
        """Whether a resumed run starts with a new optimizer."""
        self.held_out = LossByNoise(denoiser.schedule)
        self.times: tuple[Tensor, Tensor] = (torch.zeros(()), torch.zeros(()))
        """The least and the greatest t of the newest batch."""
        self.accumulation, self.figures = Accumulation(), TrainingFigures(denoiser.schedule)

    def configure_model(self) -> None:
        shares = isinstance(self.trainer.strategy, ModelParallelStrategy)
        if self.execution is not None:
            self.execution.apply(self.denoiser.network, self.trainer.strategy.root_device, shares)
            self.execution = None  # Lightning may call this more than once
        if shares and not isinstance(self.denoiser.network, FSDPModule):
            assert self.device_mesh is not None
            hybrid = isinstance(self.trainer.strategy, HybridShardStrategy)
            mesh = self.device_mesh if hybrid else self.device_mesh["data_parallel"]
            shard((*self.denoiser.network.blocks(), self.denoiser.network, *self.loss.children()), mesh)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        address = (self.accumulation.column, self.global_step, self.accumulation.step)
        seed_default_generators(fold_in(self.seed, "dropout", *address).initial_seed(), self.device)  # for dropout
        generator = fold_in(self.seed, "train", *address, device=self.device)
        x_0, condition = self.denoiser.space.encode(batch.images), batch.condition
        if self.label_dropout > 0 and self.denoiser.num_classes is not None:
            u = torch.rand(len(x_0), generator=generator, dtype=x_0.dtype, device=x_0.device)
            condition = condition.masked(u < self.label_dropout)
        if batch.draws is not None:
            assert self.augmentation is not None, "the data module draws for the module's augmentation"
            x_0, augment_label = self.augmentation(x_0, batch.draws)
            condition = replace(condition, augment_label=augment_label)
        self.loss.density.place = self.accumulation.place
        terms = self.loss(self.denoiser, x_0, condition, generator)
        self.times = (terms.t.min(), terms.t.max())
        self.figures.add_losses(terms)
        return terms.loss.mean() * self.accumulation.weight

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if not self.accumulation.enter(self.trainer, batch_idx):
            return
        factor = self.lr_schedule.factor(self.global_step, budget_of(self.trainer).share(self.trainer))
        for group, base in zip(self.trainer.optimizers[0].param_groups, self.base_groups, strict=True):
            group["lr"] = base["lr"] * factor
        force_unit_weights(self)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.accumulation.ends_step:
            log_point(self.trainer, self, self.figures)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = gradient_clip_val if gradient_clip_val and gradient_clip_algorithm in (None, "norm") else None
        if limit is not None:
            norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        norm = unsharded(norm)
        self.figures.add_gradient(norm, limit)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_gradient"):
                callback.on_gradient(self.trainer, self, optimizer, norm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        terms = self.held_out_losses(batch)
        self.held_out.update(terms.loss, terms.t)

    def held_out_losses(self, batch: Batch) -> LossTerms:
        """Each image has noise of its own: its loss does not depend on its batch, nor on the number of ranks."""
        generators = [fold_in(self.seed, "validation", index, device=self.device) for index in batch.indices]
        return self.loss(self.denoiser, self.denoiser.space.encode(batch.images), batch.condition, generators)

    def on_validation_epoch_end(self) -> None:
        self.log_held_out("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self.log_held_out("test")

    def log_held_out(self, split: str) -> None:
        # the same on all ranks: the metric has gathered them
        self.log_dict({f"{split}/{name}": mean for name, mean in self.held_out.compute().items()})
        self.held_out.reset()

    def configure_optimizers(self) -> Optimizer:
        parameters = [*self.denoiser.parameters(), *self.loss.parameters()]
        matrices = self.denoiser.network.matrices
        optimizer = build_optimizer(self.optimizer, parameters, matrices, str(self.trainer.precision))
        self.base_groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return optimizer

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.figures.load_state_dict(checkpoint.get("training_figures", {}))
        if self.forgets_optimizer:
            checkpoint["optimizer_states"] = []

    def on_train_start(self) -> None:
        self.accumulation = Accumulation()
        refresh(self.trainer.optimizers[0], self.base_groups)
        if self.global_step == 0:
            log_sizes(self.trainer, sum(p.numel() for p in self.denoiser.parameters()))

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            check_labelled(data, self.denoiser)
            self.record["class_counts"] = data.class_counts("train")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(self.record)
        checkpoint["training_figures"] = self.figures.state_dict(self.device)
