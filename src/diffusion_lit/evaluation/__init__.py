from diffusion_lit.evaluation.bits_per_dim import BitsPerDim as BitsPerDim
from diffusion_lit.evaluation.bits_per_dim import Bound as Bound
from diffusion_lit.evaluation.fid import FIDReference as FIDReference
from diffusion_lit.evaluation.fid import measure_fid as measure_fid
from diffusion_lit.evaluation.fid import mixed_labels as mixed_labels
from diffusion_lit.evaluation.loss_by_time import LossByTime as LossByTime
