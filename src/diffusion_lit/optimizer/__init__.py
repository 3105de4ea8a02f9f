from diffusion_lit.optimizer.muon import Muon as Muon
from diffusion_lit.optimizer.scale import check_scale as check_scale
