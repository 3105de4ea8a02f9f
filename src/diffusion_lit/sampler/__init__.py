from diffusion_lit.sampler.base import Sampler
from diffusion_lit.sampler.ddim import DDIMSampler
from diffusion_lit.sampler.ddpm import DDPMSampler

__all__ = ["DDIMSampler", "DDPMSampler", "Sampler"]
