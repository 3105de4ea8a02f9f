"""A picture of the generated images that are nearest to a training image, above these."""

from collections.abc import Mapping
from pathlib import Path

import torch

from diffusion_lit.evaluation.figures import Compared
from diffusion_lit.evaluation.image_set import ImageSet
from diffusion_lit.metrics import Metric, closest_pairs
from diffusion_lit.picture.grid import image_grid
from diffusion_lit.picture.image import save_image

__all__ = ["draw_pairs"]


def draw_pairs(
    generated: ImageSet,
    training: ImageSet,
    compared: Compared,
    names: Mapping[str, str],
    metrics: Mapping[str, Metric],
    num_pairs: int,
    path: Path,
) -> None:
    """Write the closest pairs as a PNG, nearest first, by the features of the first metric that reads training images.

    Args:
        generated, training: the images, of which those shown are drawn or read once more.
        compared, names, metrics: as for `measure`.
        num_pairs: how many pairs.
        path: of the picture.
    """
    extractor = next(names[key] for key, metric in metrics.items() if metric.needs_training)
    drawn, known = compared.generated[extractor].features, compared.training[extractor].features
    pairs, distances = closest_pairs(drawn, known, num_pairs)
    rows = [images.batches(own.tolist(), num_pairs) for images, own in zip((generated, training), pairs.T, strict=True)]
    shown = torch.cat([batch for row in rows for batch in row])
    caption = f"above: generated; below: the nearest training image, by {extractor} features"
    save_image(image_grid(shown, len(pairs), [f"{d:.3g}" for d in distances.tolist()], caption), path)
