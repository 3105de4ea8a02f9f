"""Inception-v3 with antialiased images."""

from torch import Tensor

from diffusion_lit.feature.inception import SIZE, Inception
from diffusion_lit.feature.resize import bicubic


class InceptionClean(Inception):
    """The features of `Inception`, of images that are resized as clean-fid does (Parmar et al. 2022, arXiv:2104.11222).

    A figure with it is to be compared with other clean ones alone.
    """

    name = "inception_clean"
    sees = f"{SIZE} x {SIZE}, bicubic as Pillow (antialiased, not rounded), grey as colour, [-1, 1)"

    def resize(self, images: Tensor) -> Tensor:
        return bicubic(images, SIZE)
