from diffusion_lit.callback.ema import EMA as EMA
from diffusion_lit.callback.ema import averaged_weights as averaged_weights
from diffusion_lit.callback.fid import FID as FID
from diffusion_lit.callback.last_checkpoint import LastCheckpoint as LastCheckpoint
from diffusion_lit.callback.nan_guard import NaNGuard as NaNGuard
from diffusion_lit.callback.progress import ProgressBar as ProgressBar
from diffusion_lit.callback.sample_grid import SampleGrid as SampleGrid
