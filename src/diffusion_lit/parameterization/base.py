"""What the raw output of the network means."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor


class Coefficients(NamedTuple):
    """x_0 = c_skip x_t + c_out F(c_in x_t) (Karras et al. 2022, eq. 7, arXiv:2206.00364)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


class Parameterization(ABC):
    """Gives the coefficients that turn the network's raw output F into an estimate of x_0."""

    @abstractmethod
    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        """The coefficients where the signal's is `alpha` and the noise's `sigma`, each in their shape."""
