"""Images from a trained model, each a function of the seed and its own index."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion_lit.condition import Condition
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.random import ImageNoise, InterpolatedNoise
from diffusion_lit.sampler import Noise, Sampler

__all__ = ["default_labels", "generate"]


def default_labels(
    denoiser: BaseDenoiser, indices: Sequence[int], classes: Sequence[int] | None = None
) -> list[int] | None:
    """The `classes` in turn, by image index; None takes all, and is None where the model has none."""
    if classes is None and denoiser.num_classes is not None:
        classes = range(denoiser.num_classes)
    return None if classes is None else [classes[i % len(classes)] for i in indices]


def generate(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    seed: int,
    device: torch.device | str = "cpu",
    interpolate: int | None = None,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """One batch of images, uint8 [B, C, H, W].

    Args:
        denoiser: the model, guided or not, in evaluation mode, on `device`.
        sampler: how to sample.
        indices: which images: number i is the same in any batch.
        labels: their classes, or None.
        seed: of all the noise.
        device: where to compute.
        interpolate: how many images lead from one noise to the next (see `InterpolatedNoise`); None draws each image
            from its own.
        on_step: called after each sampling step, as `Sampler` says.
    """
    shape = denoiser.image_shape
    noise: Noise = ImageNoise(seed, indices, shape, device)
    if interpolate is not None:
        noise = InterpolatedNoise(seed, indices, interpolate, shape, device)
    condition = Condition(None if labels is None else torch.tensor(labels, device=device))
    return denoiser.space.decode(sampler(denoiser, noise, condition, on_step))
