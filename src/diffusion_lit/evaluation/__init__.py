from diffusion_lit.evaluation.bits_per_dim import BitsPerDim as BitsPerDim
from diffusion_lit.evaluation.bits_per_dim import Bound as Bound
from diffusion_lit.evaluation.in_training import drawn_features as drawn_features
from diffusion_lit.evaluation.in_training import real_features as real_features
from diffusion_lit.evaluation.loss_by_noise import LossByNoise as LossByNoise
