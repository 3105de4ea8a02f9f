from diffusion_lit.model.base import Network as Network
from diffusion_lit.model.dit import DiT as DiT
from diffusion_lit.model.unet import UNet as UNet
