"""What figures are computed from while a model trains: features, shared out over ranks and kept in memory."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from diffusion_lit.data.order import EvaluationOrder
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.distributed.collective import gathered_in_order, rank_and_size
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import generate
from diffusion_lit.labels import Labels
from diffusion_lit.metrics import FeatureSet
from diffusion_lit.sampler import Sampler

__all__ = ["drawn_features", "real_features"]


def real_features(
    extractor: FeatureExtractor, batches: Iterable[tuple[Tensor, Tensor | None]], num_images: int
) -> FeatureSet:
    """The features of real images in their order, the same on all ranks, of which each reads every W-th image.

    Args:
        extractor: what images are compared by.
        batches: this rank's images uint8 [B, C, H, W], on the extractor's device, and their labels [B] or None.
        num_images: how many images all ranks have together.
    """
    features, classes = [], []
    for images, labels in batches:
        features.append(extractor(images))
        classes.append(torch.full((len(images),), -1, device=images.device) if labels is None else labels)
    labels = gathered_in_order(torch.cat(classes), num_images)
    return FeatureSet(gathered_in_order(torch.cat(features), num_images), labels if (labels >= 0).any() else None)


def drawn_features(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    extractor: FeatureExtractor,
    num_samples: int,
    labels: Labels | None,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> FeatureSet:
    """The features of the images `0 .. num_samples - 1` in their order, the same on all ranks, however many there are.

    Args, besides those of `generate`:
        extractor: what images are compared by.
        num_samples: how many images to generate, over all ranks.
        batch_size: images generated at a time, on each rank.
        on_step: called after each sampling step, on all ranks equally often.
    """
    own = []
    for addresses in EvaluationOrder(num_samples, batch_size, *rank_and_size()):
        indices = [index for _, index in addresses]
        own.append(extractor(generate(denoiser, sampler, indices, labels, seed, device, on_step=on_step)))
    classes = None if labels is None else torch.tensor([labels[i] for i in range(num_samples)], device=device)
    return FeatureSet(gathered_in_order(torch.cat(own), num_samples), classes, asked=True)
