from diffusion_lit.metrics.base import FeatureSet as FeatureSet
from diffusion_lit.metrics.base import Figure as Figure
from diffusion_lit.metrics.base import Metric as Metric
from diffusion_lit.metrics.base import Sets as Sets
