from diffusion_lit.evaluation.fid import FIDReference, measure_fid, mixed_labels
from diffusion_lit.evaluation.loss_by_time import LossByTime

__all__ = ["FIDReference", "LossByTime", "measure_fid", "mixed_labels"]
