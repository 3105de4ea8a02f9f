"""Training on images that come in an order of their own, which cannot be entered in its middle."""

import logging
from abc import abstractmethod
from functools import partial

import torch
from torch import Tensor

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages
from diffusion_lit.data.order import TrainingOrder
from diffusion_lit.data.sequential import SequentialImages, Shards, head
from diffusion_lit.source.image_file import Reading
from diffusion_lit.source.sample import decode

__all__ = ["SequentialDataModule"]

log = logging.getLogger(__name__)


def running_numbers(num_images: int, seed: int, epoch: int) -> Tensor:
    """The order of images that have none: what is behind a number is whatever comes next in its rank's stream.

    Numbers are unique over epochs: number n belongs to epoch n // `num_images`.
    """
    return torch.arange(epoch * num_images, (epoch + 1) * num_images)


class SequentialDataModule(ImageDataModule):
    """Images that are streamed for training and held in memory for validation and testing.

    A stream has no place to go back to. A run that is resumed in the middle of an epoch does the steps that are left of
    it on freshly shuffled shards; and within an epoch an image may come twice or not at all, because loading processes
    share out shards and not images. Both are said when training starts.

    Args:
        resolution: height and width of the images after scaling and centre-cropping.
        channels: 3 for colour, 1 for grey.
        epoch_size: how many images count as an epoch; None if that is known otherwise.
        val_size: how many images to validate on, and to test on, at most.
        shuffle_buffer: how many encoded images each loading process keeps to choose the next one from.
        batch_size, num_workers, seed, augmentation: as `ImageDataModule`.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        epoch_size: int | None,
        val_size: int,
        shuffle_buffer: int,
        batch_size: int,
        num_workers: int,
        seed: int,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, augmentation)
        sizes = {"epoch_size": epoch_size, "val_size": val_size, "shuffle_buffer": shuffle_buffer}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"data.{name} must be at least 1, got {size}")
        self.reading = Reading(resolution, channels).check("data.")
        self.resolution = resolution
        self.channels = channels
        self.epoch_size = epoch_size
        self.val_size = val_size
        self.shuffle_buffer = shuffle_buffer

    @property
    @abstractmethod
    def source(self) -> str:
        """What the images are in, for messages."""

    def streamed(self, shards: Shards, epoch_size: int) -> SequentialImages:
        """`shards` as they are trained on, this process's share of them."""
        return SequentialImages(shards, epoch_size, self.shuffle_buffer, self.reading, self.seed, *self.process())

    def in_memory(self, shards: Shards) -> tuple[ArrayImages, int, int]:
        """The first `val_size` images, and where the next one is, as `head` says.

        Raises:
            ValueError: if there are none, or one cannot be read.
        """
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
            "%s is streamed: within an epoch of %d images some may come twice and others not at all, and a run that is "
            "resumed in the middle of an epoch does the rest of it on freshly shuffled images. Data that is not "
            "streamed has neither limit",
            self.source,
            len(images),
        )
        num_shares = order.world_size * max(1, self.num_workers)
        if num_shares > images.shards.num_shards:
            log.warning(
                "%s has %d shards for %d processes x %d loading processes: several read the same shard for every n-th "
                "image of it. Fewer data.num_workers read less",
                self.source,
                images.shards.num_shards,
                order.world_size,
                max(1, self.num_workers),
            )
        if self.resumed["position"] and len(order) > (done := self.resumed["position"] // order.step_size):
            log.warning(
                "resuming at step %d of epoch %d, which is not exact: the %d steps left of it are on images shuffled "
                "anew, of which some have been seen in it before",
                done,
                self.resumed["epoch"],
                len(order) - done,
            )
