"""How much the error at each time counts."""

from abc import ABC, abstractmethod

from torch import Tensor

from diffusion_lit.denoiser import Denoiser

__all__ = ["Weighting"]


class Weighting(ABC):
    """A weight w(t) on the squared error of the network's own output.

    Papers state weights on the error of x_0; `c_out^2` carries one into the other, since
    |x_0 - x_0_hat|^2 = c_out^2 |target - F|^2.
    """

    @abstractmethod
    def __call__(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The weight at each of the times `t`, in its shape."""
