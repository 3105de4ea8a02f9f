from diffusion_lit.callback.ema import EMA, averaged_weights
from diffusion_lit.callback.fid import FID
from diffusion_lit.callback.last_checkpoint import LastCheckpoint
from diffusion_lit.callback.nan_guard import NaNGuard
from diffusion_lit.callback.progress import ProgressBar
from diffusion_lit.callback.sample_grid import SampleGrid

__all__ = ["EMA", "FID", "LastCheckpoint", "NaNGuard", "ProgressBar", "SampleGrid", "averaged_weights"]
