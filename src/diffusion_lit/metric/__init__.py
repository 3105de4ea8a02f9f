from diffusion_lit.metric.base import FeatureExtractor
from diffusion_lit.metric.inception import Inception
from diffusion_lit.metric.loss_by_time import LossByTime
from diffusion_lit.metric.pixels import Pixels
from diffusion_lit.metric.random_vgg import RandomVGG

__all__ = ["FeatureExtractor", "Inception", "LossByTime", "Pixels", "RandomVGG"]
