from diffusion_lit.weighting.base import Weighting, X0Weighting
from diffusion_lit.weighting.min_snr import MinSNRWeighting
from diffusion_lit.weighting.p2 import P2Weighting
from diffusion_lit.weighting.sigmoid import SigmoidWeighting
from diffusion_lit.weighting.snr import SNRWeighting
from diffusion_lit.weighting.truncated_snr import TruncatedSNRWeighting
from diffusion_lit.weighting.unit import UnitWeighting

__all__ = [
    "MinSNRWeighting",
    "P2Weighting",
    "SNRWeighting",
    "SigmoidWeighting",
    "TruncatedSNRWeighting",
    "UnitWeighting",
    "Weighting",
    "X0Weighting",
]
