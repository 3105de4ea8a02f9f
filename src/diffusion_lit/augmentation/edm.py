"""EDM's non-leaking augmentation: the network is conditioned on its parameters."""

import math

import torch
from torch import Generator, Tensor

from diffusion_lit.augmentation.base import Augmentation
from diffusion_lit.augmentation.flip import mirror
from diffusion_lit.augmentation.resample import resample


class EDMAugmentation(Augmentation):
    """Flips, scaling, rotation, stretching and translation (Karras et al. 2022, appendix F.2 and table 6).

    Left and right are exchanged half of the time; each other transformation happens with probability `p` (top and
    bottom are then exchanged half of the time), in this order. With z a standard normal number:

        scaling      by 2^(scale_std z)
        rotation     by an angle uniform in [-pi, pi], counter-clockwise
        stretching   by 2^(stretch_std z) along one axis and its inverse along the other; half of the time the axes
                     are themselves turned by an angle uniform in [-pi, pi]
        translation  by translation_std z of the image's width to the right, and of its height, with another z, down

    The network receives z, the flips as 0 or 1, a rotation as cos - 1 and sin, stretching as z times cos and sin of its
    axes' angle: nine numbers that are all zero for an image left as it is. arXiv:2206.00364.

    Args:
        p: probability of each transformation but the exchange of left and right; a ValueError outside [0, 1].
        scale_std, stretch_std: standard deviation of log2 of the scale, and of the stretch along its axis.
        translation_std: standard deviation of the translation, as a share of the image's size.

    A negative standard deviation is a ValueError.
    """

    num_draws = 8
    dim = 9

    def __init__(
        self, p: float = 0.12, scale_std: float = 0.2, stretch_std: float = 0.2, translation_std: float = 0.125
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"augmentation.p is a probability in [0, 1], got {p}; EDM's is 0.12, or 0.15 on FFHQ")
        stds = {"scale_std": scale_std, "stretch_std": stretch_std, "translation_std": translation_std}
        for name, std in stds.items():
            if std < 0:
                raise ValueError(f"augmentation.{name} must not be negative, got {std}; 0 never does it, EDM's is 0.2")
        self.p, self.scale_std, self.stretch_std, self.translation_std = p, scale_std, stretch_std, translation_std

    def draw(self, generator: Generator) -> Tensor:
        """Flips in x and y, z of scale, rotation, z of stretch, its axes' angle, z of translation in x, y; or 0."""
        uniform = torch.rand(10, generator=generator, dtype=torch.float32).tolist()
        scale, stretch, right, down = torch.randn(4, generator=generator, dtype=torch.float32).tolist()
        flips, scales, rotates, stretches, translates = (u < self.p for u in uniform[:5])
        mirrored, upside_down, turned = (u < 0.5 for u in uniform[5:8])
        rotation, axis = (math.pi * (2 * u - 1) for u in uniform[8:])
        draws = [mirrored, flips and upside_down, scales * scale, rotates * rotation]
        draws += [stretches * stretch, stretches * turned * axis, translates * right, translates * down]
        return torch.tensor(draws, dtype=torch.float32)

    def __call__(self, x_0: Tensor, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        draws = draws.to(torch.promote_types(draws.dtype, torch.float32))  # a position in bfloat16 is pixels off
        mirrored, upside_down, scale, rotation, stretch, axis, right, down = draws.unbind(1)
        x_0 = mirror(mirror(x_0, mirrored, dim=-1), upside_down, dim=-2)

        height, width = x_0.shape[2:]
        zoom, ratio = torch.exp2(self.scale_std * scale), torch.exp2(self.stretch_std * stretch)
        shift = self.translation_std * torch.stack([width * right, height * down], dim=1)
        with torch.autocast(x_0.device.type, enabled=False):  # whatever the network's precision
            squeeze = turn(axis) @ torch.diag_embed(torch.stack([1 / ratio, ratio], dim=1)) @ turn(-axis)
            x_0 = resample(x_0, turn(-rotation) @ squeeze / zoom[:, None, None], shift)

        turned = [rotation.cos() - 1, rotation.sin()]
        stretched = [stretch * axis.cos(), stretch * axis.sin()]
        return x_0, torch.stack([mirrored, upside_down, scale, *turned, *stretched, right, down], dim=1)


def turn(angle: Tensor) -> Tensor:
    """The rotations counter-clockwise by `angle` [B], as matrices [B, 2, 2] on (x, y), y pointing down."""
    return torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
