"""What a metric of the FID callback must fit, found before training."""

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics import Metric

__all__ = ["check_count", "check_features"]


def check_features(name: str, metric: Metric, extractor: FeatureExtractor) -> None:
    """Raise a ValueError if a metric is of other features, which its figure would not be of."""
    own = getattr(metric, "extractor", None)
    if own not in (None, extractor) and own.protocol() != extractor.protocol():
        raise ValueError(
            f"callback.fid.{name} is of {own.name} features, and callback.fid of {extractor.name} features: "
            f"leave it to diffusion_lit.evaluate, or set feature={own.name} for both"
        )


def check_count(name: str, metric: Metric, count: int, kind: str) -> None:
    """Raise a ValueError if a metric takes more images of a kind than there are."""
    if count < metric.min_images:
        less = f"set callback.fid.{name}.{metric.fewer} lower, or " if metric.fewer else ""
        raise ValueError(
            f"callback.fid.{name} takes at least {metric.min_images} {kind} images, and there are {count}: {less}"
            "leave it out"
        )
