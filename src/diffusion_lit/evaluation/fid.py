"""The Frechet distance between generated and real images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.image import FrechetInceptionDistance

from diffusion_lit.data.order import EvaluationOrder
from diffusion_lit.denoiser import BaseDenoiser
from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.generate import generate
from diffusion_lit.sampler import Sampler


@dataclass(frozen=True)
class FIDReference:
    """What generated images are compared with."""

    metric: FrechetInceptionDistance
    """The features of real images, which `reset` keeps."""
    num_features: int
    """How many there are of each image."""
    class_counts: Tensor | None
    """How many real images each class has, all zeros where they have no labels; None for a model without classes."""

    @classmethod
    def of(
        cls,
        extractor: FeatureExtractor,
        batches: Iterable[tuple[Tensor, Tensor | None]],
        num_classes: int | None,
        device: torch.device,
    ) -> "FIDReference":
        """Read this rank's share of the real images.

        Args:
            extractor, device: what images are compared by, and where.
            batches: images uint8 [B, C, H, W] on `device`, and their labels [B] or None.
            num_classes: how many classes the model has, or None.
        """
        extractor = extractor.to(device)
        metric, num_features = None, 0
        counts = torch.zeros(num_classes or 0, dtype=torch.long, device=device)
        for images, labels in batches:
            if metric is None:
                num_features = extractor.num_features = extractor(images[:1]).shape[1]  # which torchmetrics asks for
                metric = FrechetInceptionDistance(extractor, reset_real_features=False).to(device)
            metric.update(images, real=True)
            if labels is not None and num_classes is not None:
                counts += torch.bincount(labels[labels >= 0], minlength=num_classes)
        assert metric is not None, "every rank has a share"
        return cls(metric, num_features, None if num_classes is None else counts)


def measure_fid(
    denoiser: BaseDenoiser,
    sampler: Sampler,
    reference: FIDReference,
    num_samples: int,
    labels: Sequence[int] | None,
    batch_size: int = 250,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_step: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """|mean - mean_r|^2 + tr(S + S_r - 2 (S S_r)^(1/2)) of the features' moments (Heusel et al. 2017, eq. 6).

    Each rank generates its share of the images, the same images whatever the number of ranks; the figure is the same on
    all. arXiv:1706.08500.

    Args, besides those of `generate`:
        reference: the real images; its metric is used and reset.
        num_samples: how many images to generate, over all ranks.
        batch_size: images generated at a time, on each rank.
        rank, world_size: which share is this process's.
        on_step: called after each sampling step, on all ranks equally often.
    """
    metric = reference.metric
    for addresses in EvaluationOrder(num_samples, batch_size, rank, world_size):
        indices = [index for _, index in addresses]
        images = generate(denoiser, sampler, indices, labels, seed, metric.device, on_step=on_step)
        metric.update(images, real=False)
    value: Tensor = metric.compute()
    metric.reset()
    return value


def mixed_labels(counts: Sequence[int], num_samples: int) -> list[int]:
    """`num_samples` labels with the classes in the proportions of `counts`, evenly mixed: no class comes in a block."""
    total = sum(counts)
    shares = [count * num_samples / total for count in counts]
    quotas = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda c: quotas[c] - shares[c])  # the largest first
    for c in by_remainder[: num_samples - sum(quotas)]:
        quotas[c] += 1
    places = [((k + 0.5) / quota, c) for c, quota in enumerate(quotas) for k in range(quota)]
    return [c for _, c in sorted(places)]
