from diffusion_lit.augmentation.base import Augmentation as Augmentation
from diffusion_lit.augmentation.edm import EDMAugmentation as EDMAugmentation
from diffusion_lit.augmentation.flip import FlipAugmentation as FlipAugmentation
from diffusion_lit.augmentation.none import NoAugmentation as NoAugmentation
