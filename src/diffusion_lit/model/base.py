"""What a network says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from diffusion_lit.condition import Condition


class Network(nn.Module, ABC):
    """Any network that a `Denoiser` can hold."""

    image_shape: tuple[int, int, int]
    """(C, H, W) of the images, or latents, that it takes."""
    num_classes: int | None = None
    """Labels are 0..num_classes - 1; None where it is unconditional."""
    null_class: bool = True
    """Whether a network with classes can also be asked without one, `NO_CLASS`."""
    learn_variance: bool = False
    """Whether its output has a second half: the variance of a reverse step, -1 for small and 1 for large."""
    augmentation_dim: int = 0
    """How many numbers of EDM's augment label it takes; 0 for none."""

    @abstractmethod
    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        """The raw output F, [B, C, H, W], or [B, 2 C, H, W] with a learned variance.

        Args:
            x: c_in x_t, [B, C, H, W].
            c_noise: noise levels as the schedule's `c_noise` gives them, [B].
            condition: what else is known; a field that the network has no layer for is not read.
        """

    def blocks(self) -> Iterable[nn.Module]:
        """The repeated parts, in which a sharded, compiled or checkpointed network is wrapped one by one."""
        return ()

    def matrices(self) -> Iterable[nn.Parameter]:
        """The weights that take features to features, and that `optimizer=muon` treats as matrices.

        Those of `blocks` with two dimensions or more, unless a network says otherwise; not the first and last layers,
        nor embeddings.
        """
        return (p for block in self.blocks() for p in block.parameters() if p.ndim > 1)

    def class_parameters(self) -> Iterable[str]:
        """The names of the parameters that belong to the classes, which another set's classes make new."""
        return ()
