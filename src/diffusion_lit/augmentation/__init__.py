from diffusion_lit.augmentation.base import Augmentation
from diffusion_lit.augmentation.edm import EDMAugmentation
from diffusion_lit.augmentation.flip import FlipAugmentation
from diffusion_lit.augmentation.none import NoAugmentation

__all__ = ["Augmentation", "EDMAugmentation", "FlipAugmentation", "NoAugmentation"]
