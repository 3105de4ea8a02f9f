from diffusion_lit.lr_schedule.base import LRSchedule
from diffusion_lit.lr_schedule.constant import ConstantLR
from diffusion_lit.lr_schedule.inverse_sqrt import InverseSqrtLR
from diffusion_lit.lr_schedule.warmup import WarmupLR
from diffusion_lit.lr_schedule.warmup_cosine import WarmupCosineLR

__all__ = ["ConstantLR", "InverseSqrtLR", "LRSchedule", "WarmupCosineLR", "WarmupLR"]
