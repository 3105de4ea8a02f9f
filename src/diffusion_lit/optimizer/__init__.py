from diffusion_lit.optimizer.building import build_optimizer as build_optimizer
from diffusion_lit.optimizer.building import check_optimizer as check_optimizer
from diffusion_lit.optimizer.building import refresh as refresh
from diffusion_lit.optimizer.muon import Muon as Muon
