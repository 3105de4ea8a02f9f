from diffusion_lit.metrics.authenticity import Authenticity as Authenticity
from diffusion_lit.metrics.base import Better as Better
from diffusion_lit.metrics.base import FeatureSet as FeatureSet
from diffusion_lit.metrics.base import Figure as Figure
from diffusion_lit.metrics.base import Metric as Metric
from diffusion_lit.metrics.base import Sets as Sets
from diffusion_lit.metrics.by_class import ByClass as ByClass
from diffusion_lit.metrics.class_histogram import ClassHistogram as ClassHistogram
from diffusion_lit.metrics.cmmd import CMMD as CMMD
from diffusion_lit.metrics.ct_score import CTScore as CTScore
from diffusion_lit.metrics.density_coverage import DensityCoverage as DensityCoverage
from diffusion_lit.metrics.feature_likelihood_divergence import (
    FeatureLikelihoodDivergence as FeatureLikelihoodDivergence,
)
from diffusion_lit.metrics.fid_infinity import FIDInfinity as FIDInfinity
from diffusion_lit.metrics.frechet_distance import FrechetDistance as FrechetDistance
from diffusion_lit.metrics.inception_score import InceptionScore as InceptionScore
from diffusion_lit.metrics.kernel_distance import KernelDistance as KernelDistance
from diffusion_lit.metrics.nearest_neighbour import NearestNeighbour as NearestNeighbour
from diffusion_lit.metrics.nearest_neighbour import closest_pairs as closest_pairs
from diffusion_lit.metrics.precision_recall import PrecisionRecall as PrecisionRecall
from diffusion_lit.metrics.vendi import Vendi as Vendi
