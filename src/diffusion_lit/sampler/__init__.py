from diffusion_lit.sampler.base import Sampler
from diffusion_lit.sampler.ddim import DDIMSampler
from diffusion_lit.sampler.ddpm import DDPMSampler
from diffusion_lit.sampler.dpmpp_2m import DPMpp2MSampler
from diffusion_lit.sampler.dpmpp_3m import DPMpp3MSampler
from diffusion_lit.sampler.euler import EulerSampler
from diffusion_lit.sampler.euler_maruyama import EulerMaruyamaSampler
from diffusion_lit.sampler.heun import HeunSampler
from diffusion_lit.sampler.ode import ODESampler
from diffusion_lit.sampler.predictor_corrector import PredictorCorrectorSampler
from diffusion_lit.sampler.unipc import UniPCSampler
from diffusion_lit.sampler.walk import Noise, Walk

__all__ = [
    "DDIMSampler",
    "DDPMSampler",
    "DPMpp2MSampler",
    "DPMpp3MSampler",
    "EulerMaruyamaSampler",
    "EulerSampler",
    "HeunSampler",
    "Noise",
    "ODESampler",
    "PredictorCorrectorSampler",
    "Sampler",
    "UniPCSampler",
    "Walk",
]
