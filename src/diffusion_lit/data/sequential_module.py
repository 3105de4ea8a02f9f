"""Training on images that come in an order of their own, which cannot be entered in its middle."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages
from diffusion_lit.data.order import TrainingOrder
from diffusion_lit.data.sequential import SequentialImages, Shards, head
from diffusion_lit.resolution import height_and_width, shortest
from diffusion_lit.source.image_file import Reading, decode

__all__ = ["SequentialDataModule"]

log = logging.getLogger(__name__)


def running_numbers(num_images: int, seed: int, epoch: int) -> Tensor:
    """Numbers, unique over epochs, of images without an order: behind each is what comes next in its rank's stream."""
    return torch.arange(epoch * num_images, (epoch + 1) * num_images)


@dataclass(eq=False, repr=False, kw_only=True)
class SequentialDataModule(ImageDataModule):
    """Images that are streamed for training and held in memory for validation and testing.

    A stream has no place to go back to. A run that is resumed in the middle of an epoch does the steps that are left of
    it on freshly shuffled shards; and within an epoch an image may come twice or not at all, because loading processes
    share out shards and not images. Both are said when training starts.

    Args:
        resolution: height and width that images are scaled and centre-cropped to; one number where they are alike.
        channels: 1 for grey, 2 for grey and alpha, 3 for colour, 4 for colour and alpha, or as many as all files have
            that are arrays (`.npy`, TIFF of any number of bands).
        epoch_size: how many images count as an epoch; None if that is known otherwise.
        val_size: how many images to validate on, and to test on, at most.
        shuffle_buffer: how many encoded images each loading process keeps to choose the next one from.

    Raises:
        ValueError: if a number is out of range.
    """

    resolution: int | Sequence[int] = 64
    channels: int = 3
    epoch_size: int | None = None
    val_size: int = 1000
    shuffle_buffer: int = 1000
    batch_size: int = 32
    num_workers: int = 2

    source: str = field(init=False)
    """What the images are in, for messages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epoch_size", "val_size", "shuffle_buffer"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"data.{name} must be at least 1, got {size}")
        self.resolution = shortest(*height_and_width(self.resolution, "data.resolution"))
        self.reading = Reading(self.resolution, self.channels).check("data.")

    def streamed(self, shards: Shards, epoch_size: int) -> SequentialImages:
        """`shards` as they are trained on, this process's share of them."""
        return SequentialImages(shards, epoch_size, self.shuffle_buffer, self.reading, self.seed, *self.process())

    def in_memory(self, shards: Shards) -> tuple[ArrayImages, int, int]:
        """The first `val_size` images, and where the next one is, as `head` says."""
        samples, shard, place = head(shards, self.val_size)
        if not samples:
            raise ValueError(f"{self.source} has no images to validate or test on in {shards.num_shards} shards")
        return ArrayImages(*decode(samples, self.reading)), shard, place

    def training_order(self) -> TrainingOrder:
        images = self.splits["train"]
        if not isinstance(images, SequentialImages):
            return super().training_order()
        permutation = partial(running_numbers, len(images))
        order = TrainingOrder(len(images), self.batch_size, self.seed, *self.process(), permutation)
        if order.rank == 0:
            self.announce(images, order)
        return order

    def announce(self, images: SequentialImages, order: TrainingOrder) -> None:
        log.warning(
            f"{self.source} is streamed: within an epoch of {len(images)} images some may come twice and others not at "
            "all, and a run that is resumed in the middle of an epoch does the rest of it on freshly shuffled images. "
            "Data that is not streamed has neither limit"
        )
        num_shares = order.world_size * max(1, self.num_workers)
        if num_shares > images.shards.num_shards:
            log.warning(
                f"{self.source} has {images.shards.num_shards} shards for {order.world_size} processes x "
                f"{max(1, self.num_workers)} loading processes: several read the same shard for every n-th image of "
                "it. Fewer data.num_workers read less"
            )
        if self.resumed["position"] and len(order) > (done := order.batches_before(self.resumed["position"])):
            log.warning(
                f"resuming at batch {done} of epoch {self.resumed['epoch']}, which is not exact: the "
                f"{len(order) - done} batches left of it are on images shuffled anew, of which some have been seen in "
                "it before"
            )
