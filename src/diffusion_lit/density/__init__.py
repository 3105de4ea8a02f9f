from diffusion_lit.density.base import Density
from diffusion_lit.density.importance import ImportanceDensity
from diffusion_lit.density.logit_normal import LogitNormalDensity
from diffusion_lit.density.lognormal import LognormalDensity
from diffusion_lit.density.stratified import StratifiedDensity
from diffusion_lit.density.uniform import UniformDensity

__all__ = [
    "Density",
    "ImportanceDensity",
    "LogitNormalDensity",
    "LognormalDensity",
    "StratifiedDensity",
    "UniformDensity",
]
