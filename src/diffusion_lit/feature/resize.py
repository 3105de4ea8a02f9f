"""The filter that Pillow resizes with."""

import torch.nn.functional as F
from torch import Tensor


def bicubic(images: Tensor, size: int, rounded: bool = False) -> Tensor:
    """Resize as Pillow's `Image.resize(resample=BICUBIC)` does.

    Keys' cubic with a = -1/2, as wide as the spacing of the pixels that result, so that shrinking does not alias, and
    cut off at the border. (Without antialiasing torch has a = -3/4.)

    Args:
        images: in [0, 255], [B, C, H, W].
        size: height and width of the result.
        rounded: resize bytes, as Pillow does with `RGB`: width first, then height, each rounded to whole numbers.
            False keeps fractions, as Pillow does with `F` and clean-fid therefore (Parmar et al. 2022,
            arXiv:2104.11222).

    Returns:
        Pixels in [0, 255], float32 [B, C, size, size].
    """
    x = images.float()
    if not rounded:
        return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    for shape in ((x.shape[-2], size), (size, size)):
        x = (F.interpolate(x, shape, mode="bicubic", antialias=True) + 0.5).floor().clamp(0, 255)
    return x
