from diffusion_lit.feature.base import Classifier as Classifier
from diffusion_lit.feature.base import FeatureExtractor as FeatureExtractor
from diffusion_lit.feature.inception import Inception as Inception
from diffusion_lit.feature.pixels import Pixels as Pixels
from diffusion_lit.feature.random_vgg import RandomVGG as RandomVGG
