from diffusion_lit.weighting.base import Weighting
from diffusion_lit.weighting.min_snr import MinSNRWeighting
from diffusion_lit.weighting.unit import UnitWeighting

__all__ = ["MinSNRWeighting", "UnitWeighting", "Weighting"]
