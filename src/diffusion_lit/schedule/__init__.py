from diffusion_lit.schedule.base import Schedule
from diffusion_lit.schedule.beta import BetaSchedule
from diffusion_lit.schedule.cosine import CosineSchedule
from diffusion_lit.schedule.cosine_continuous import CosineContinuousSchedule
from diffusion_lit.schedule.discrete import DiscreteSchedule
from diffusion_lit.schedule.edm import EDMSchedule
from diffusion_lit.schedule.flow import FlowSchedule
from diffusion_lit.schedule.linear import LinearSchedule
from diffusion_lit.schedule.quadratic import QuadraticSchedule
from diffusion_lit.schedule.scaled_linear import ScaledLinearSchedule
from diffusion_lit.schedule.sigmoid import SigmoidSchedule
from diffusion_lit.schedule.spacing import SPACINGS, check_spacing, per_image, spaced_times
from diffusion_lit.schedule.sqrt import SqrtSchedule
from diffusion_lit.schedule.vp import VPSchedule

__all__ = [
    "SPACINGS",
    "BetaSchedule",
    "CosineContinuousSchedule",
    "CosineSchedule",
    "DiscreteSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "LinearSchedule",
    "QuadraticSchedule",
    "ScaledLinearSchedule",
    "Schedule",
    "SigmoidSchedule",
    "SqrtSchedule",
    "VPSchedule",
    "check_spacing",
    "per_image",
    "spaced_times",
]
