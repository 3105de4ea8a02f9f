from diffusion_lit.schedule.base import Schedule
from diffusion_lit.schedule.cosine import CosineSchedule
from diffusion_lit.schedule.discrete import DiscreteSchedule
from diffusion_lit.schedule.linear import LinearSchedule
from diffusion_lit.schedule.quadratic import QuadraticSchedule
from diffusion_lit.schedule.sigmoid import SigmoidSchedule

__all__ = ["CosineSchedule", "DiscreteSchedule", "LinearSchedule", "QuadraticSchedule", "Schedule", "SigmoidSchedule"]
