"""How much the error at each time counts."""

from abc import ABC, abstractmethod

from torch import Tensor

from diffusion_lit.denoiser import Prediction


class Weighting(ABC):
    """A weight on the squared error of the network's own output."""

    @abstractmethod
    def __call__(self, p: Prediction) -> Tensor:
        """The weight of each image's error, [B, 1, 1, 1]."""


class X0Weighting(Weighting):
    """A weight that is stated, as papers do, on the squared error of x_0, as a function of log SNR.

    c_out^2 carries it over to the output, since |x_0 - x_0_hat|^2 = c_out^2 |target - F|^2.
    """

    def __call__(self, p: Prediction) -> Tensor:
        return self.of_x_0(p.log_snr).to(p.c_out.dtype) * p.c_out**2

    @abstractmethod
    def of_x_0(self, log_snr: Tensor) -> Tensor:
        """The weight on |x_0 - x_0_hat|^2 where log SNR is `log_snr`, in its shape."""
