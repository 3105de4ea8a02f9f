from diffusion_lit.feature.base import FeatureExtractor
from diffusion_lit.feature.inception import Inception
from diffusion_lit.feature.pixels import Pixels
from diffusion_lit.feature.random_vgg import RandomVGG

__all__ = ["FeatureExtractor", "Inception", "Pixels", "RandomVGG"]
