from diffusion_lit.loss.base import Loss, LossTerms
from diffusion_lit.loss.hybrid import HybridLoss
from diffusion_lit.loss.mse import MSELoss
from diffusion_lit.loss.uncertainty import UncertaintyLoss
from diffusion_lit.loss.vlb import VLBLoss

__all__ = ["HybridLoss", "Loss", "LossTerms", "MSELoss", "UncertaintyLoss", "VLBLoss"]
