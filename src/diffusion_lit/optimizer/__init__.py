from diffusion_lit.optimizer.muon import Muon as Muon
