from diffusion_lit.loss.base import Loss
from diffusion_lit.loss.mse import MSELoss

__all__ = ["Loss", "MSELoss"]
