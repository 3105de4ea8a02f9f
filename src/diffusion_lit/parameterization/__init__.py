from diffusion_lit.parameterization.base import Coefficients, Parameterization
from diffusion_lit.parameterization.edm import EDMParameterization
from diffusion_lit.parameterization.eps import EpsParameterization
from diffusion_lit.parameterization.v import VParameterization
from diffusion_lit.parameterization.velocity import VelocityParameterization
from diffusion_lit.parameterization.x0 import X0Parameterization

__all__ = [
    "Coefficients",
    "EDMParameterization",
    "EpsParameterization",
    "Parameterization",
    "VParameterization",
    "VelocityParameterization",
    "X0Parameterization",
]
