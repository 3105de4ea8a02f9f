from diffusion_lit.density.base import Density
from diffusion_lit.density.uniform import UniformDensity

__all__ = ["Density", "UniformDensity"]
