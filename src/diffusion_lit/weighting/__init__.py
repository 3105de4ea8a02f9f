from diffusion_lit.weighting.base import Weighting as Weighting
from diffusion_lit.weighting.base import X0Weighting as X0Weighting
from diffusion_lit.weighting.min_snr import MinSNRWeighting as MinSNRWeighting
from diffusion_lit.weighting.p2 import P2Weighting as P2Weighting
from diffusion_lit.weighting.sigmoid import SigmoidWeighting as SigmoidWeighting
from diffusion_lit.weighting.snr import SNRWeighting as SNRWeighting
from diffusion_lit.weighting.truncated_snr import TruncatedSNRWeighting as TruncatedSNRWeighting
from diffusion_lit.weighting.unit import UnitWeighting as UnitWeighting
