from diffusion_lit.density.base import Density as Density
from diffusion_lit.density.importance import ImportanceDensity as ImportanceDensity
from diffusion_lit.density.logit_normal import LogitNormalDensity as LogitNormalDensity
from diffusion_lit.density.lognormal import LognormalDensity as LognormalDensity
from diffusion_lit.density.stratified import StratifiedDensity as StratifiedDensity
from diffusion_lit.density.uniform import UniformDensity as UniformDensity
