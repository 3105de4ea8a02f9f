"""What is done to training images before they are noised."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor


class Augmentation(ABC):
    """Random numbers for each image, and what they do to it.

    The numbers are drawn where images are fetched, as a function of (seed, epoch, index), and used on the device. Where
    the network receives what was done (`dim` > 0), it learns to draw images that nothing was done to: the augmentation
    does not leak into samples (Karras et al. 2022, appendix F.2, arXiv:2206.00364).
    """

    num_draws: int
    """How many numbers are drawn for an image."""
    dim: int
    """How many numbers of an image the network is conditioned on; 0 for none."""

    @abstractmethod
    def draw(self, generator: Generator) -> Tensor:
        """The numbers for one image, float32 [num_draws]; all zeros leave an image as it is."""

    @abstractmethod
    def __call__(self, x_0: Tensor, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        """Augment each image by its own numbers alone.

        Args:
            x_0: images in [-1, 1], [B, C, H, W].
            draws: the numbers for each of them, [B, num_draws].

        Returns:
            The images, and their augment labels, float32 [B, dim], zeros for an image left as it is; None where
            `dim` is 0.
        """
