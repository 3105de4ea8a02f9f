from diffusion_lit.model.base import Network
from diffusion_lit.model.unet import UNet

__all__ = ["Network", "UNet"]
