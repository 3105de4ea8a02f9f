from diffusion_lit.model.base import Network as Network
from diffusion_lit.model.dit import DiT as DiT
from diffusion_lit.model.edm2 import EDM2UNet as EDM2UNet
from diffusion_lit.model.song_unet import SongUNet as SongUNet
from diffusion_lit.model.unet import UNet as UNet
