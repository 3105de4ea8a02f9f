from diffusion_lit.loss.base import Loss as Loss
from diffusion_lit.loss.base import LossTerms as LossTerms
from diffusion_lit.loss.hybrid import HybridLoss as HybridLoss
from diffusion_lit.loss.mse import MSELoss as MSELoss
from diffusion_lit.loss.uncertainty import UncertaintyLoss as UncertaintyLoss
from diffusion_lit.loss.vlb import VLBLoss as VLBLoss
