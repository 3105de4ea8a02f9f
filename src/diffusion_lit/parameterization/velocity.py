"""The network predicts the velocity of the straight path."""

from torch import Tensor

from diffusion_lit.parameterization.base import Coefficients, Parameterization


class VelocityParameterization(Parameterization):
    """F estimates eps - x_0, so x_0 = x_t - sigma F (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023).

    That is on the scale where alpha + sigma = 1, rectified flow's, to which x_t, alpha and sigma are brought by
    1 / (alpha + sigma). F is then the constant velocity d x_t / d sigma of the path from x_0 to eps.
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        scale = 1 / (alpha + sigma)
        return Coefficients(c_skip=scale, c_out=-sigma * scale, c_in=scale)
