from diffusion_lit.model.unet import UNet

__all__ = ["UNet"]
