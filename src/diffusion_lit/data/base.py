"""What every data module shares: three splits, and an order that can be resumed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.batch import AugmentedImages, Batch, Images, already_batched
from diffusion_lit.data.order import EvaluationOrder, TrainingOrder
from diffusion_lit.resolution import height_and_width
from diffusion_lit.space import LatentSpace, PixelSpace, Space, latent_space

__all__ = ["ImageDataModule"]


class ImageFacts:
    """What the images of a data module are, known once it is built."""

    resolution: int | Sequence[int]
    """Height and width; one number where they are alike."""
    channels: int
    class_names: list[str] | None = None
    space: Space = PixelSpace()
    """What is stored."""
    start_method: str | None = None
    """How loading processes start (see `multiprocessing`); None means the platform's way."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return height_and_width(self.resolution)

    @property
    def num_classes(self) -> int | None:
        return None if self.class_names is None else len(self.class_names)


@dataclass(eq=False, repr=False, kw_only=True)
class ImageDataModule(ImageFacts, LightningDataModule, ABC):
    """Images in three splits, as bytes until they reach the device. A subclass states its `ImageFacts` and loads them.

    Args:
        batch_size: images in a batch, of which each process has `trainer.accumulate_grad_batches` a step.
        num_workers: loading processes beside each training process; 0 loads in the training process itself.
        seed: seed of the order and the augmentation.
        augmentation: augmentation of training images; None disables it.
        latents: the folder of an autoencoder, as diffusers writes it, that encodes images as they are trained on; None
            trains on pixels, or on what is prepared.

    Raises:
        ValueError: if `batch_size` is under 1 or `num_workers` negative.
    """

    batch_size: int = 64
    num_workers: int = 0
    seed: int = 0
    augmentation: Augmentation | None = None
    latents: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {self.batch_size}")
        if self.num_workers < 0:
            raise ValueError(f"data.num_workers must not be negative, got {self.num_workers}")
        if self.latents is not None:
            self.space = latent_space(self.latents)
        self.splits: dict[str, Images] = {}
        self.resumed = {"epoch": 0, "step": 0, "position": 0}

    @property
    def x_0_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a model of these images works on; a ValueError if they cannot be encoded to that."""
        shape = (self.channels, *self.sides)
        return self.space.decoder.shape_of(*shape) if self.latents and isinstance(self.space, LatentSpace) else shape

    @abstractmethod
    def load(self) -> dict[str, Images]:
        """The splits `train`, `val` and `test`."""

    def class_counts(self, split: str) -> list[int] | None:
        """How many images of a split each class has; None where there are no classes. After `setup`."""
        labels: Tensor | None = getattr(self.splits[split], "labels", None)
        if labels is None:
            return None
        return torch.bincount(labels[labels >= 0], minlength=self.num_classes or 0).tolist()

    def facts(self) -> dict[str, str]:
        """What else there is to say of the set, by name."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.splits = self.load()

    def train_dataloader(self) -> DataLoader[Batch]:
        order = self.training_order()
        order.resume(self.resumed["epoch"], self.resumed["position"])
        self.round_size = order.round_size
        if self.resumed["position"]:
            self.recount(order.batches_before(self.resumed["position"]))
        return self.loader("train", order, self.augmentation)

    def training_order(self) -> TrainingOrder:
        """This rank's share of an epoch, from its beginning."""
        count, batches = len(self.splits["train"]), self.batches_per_step()
        return TrainingOrder(count, self.batch_size, self.seed, *self.process(), batches_per_step=batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: str) -> DataLoader[Batch]:
        """This rank's share of a split, in order and never augmented."""
        order = EvaluationOrder(len(self.splits[split]), self.batch_size, *self.process())
        return self.loader(split, order, augmentation=None)

    def loader(
        self, split: str, order: TrainingOrder | EvaluationOrder, augmentation: Augmentation | None
    ) -> DataLoader[Batch]:
        return DataLoader(
            AugmentedImages(self.splits[split], self.seed, augmentation),
            batch_sampler=order,
            collate_fn=already_batched,
            num_workers=self.num_workers,
            multiprocessing_context=self.start_method if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def process(self) -> tuple[int, int]:
        """This process's rank and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def batches_per_step(self) -> int:
        """How many batches each process has in a step."""
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def recount(self, batches: int) -> None:
        """Tell Lightning how many batches of today's size the images already trained on come to."""
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        for counter in ("ready", "started", "processed", "completed"):
            setattr(progress, counter, getattr(progress, counter) + batches - self.resumed["step"])
        self.resumed["step"] = batches

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch, its batches done, and how many of its images all ranks have trained on."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        before = self.resumed if self.resumed["epoch"] == epoch else {"step": 0, "position": 0}
        position = before["position"] + (done - before["step"]) * self.round_size
        return {"epoch": epoch, "step": done, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resumed = dict(state)
