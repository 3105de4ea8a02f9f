"""Figures of one set of generated images, and what they would be of real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffusion_lit.feature.degenerate import collapsed
from diffusion_lit.metrics import FeatureSet, Figure, Metric, Sets
from diffusion_lit.random import fold_in

__all__ = ["Compared", "halves", "measure", "name_beside", "noise_floor", "notes", "stated"]


@dataclass(frozen=True)
class Compared:
    """Features of all images that figures are computed from, by extractor."""

    generated: Mapping[str, FeatureSet]
    real: Mapping[str, FeatureSet]
    training: Mapping[str, FeatureSet]

    def sets(self, metric: Metric, name: str) -> Sets:
        return Sets(self.generated[name], self.real[name], self.training[name] if metric.needs_training else None)


def name_beside(found: Mapping[str, Mapping[str, Any]], name: str, key: str) -> str:
    """The name of a metric's figure beside those `found`: where another metric has taken it, as `fid`, `fid.KEY`."""
    return name if found.get(name, {}).get("metric", key) == key else f"{name}.{key}"


def measure(metrics: Mapping[str, Metric], names: Mapping[str, str], compared: Compared) -> dict[str, dict[str, Any]]:
    """All figures by name, each with the metric and the extractor that it is from, and the images that decide it.

    Args:
        metrics: by name.
        names: of each metric's extractor.
        compared: the features.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, metric in metrics.items():
        for name, figure in metric.measure(compared.sets(metric, names[key])).items():
            found[name_beside(found, name, key)] = stated(figure) | {
                "metric": key,
                "feature": names[key],
                "reads": metric.reads,
                "better": metric.better if figure.better is None else figure.better,
            }
    return found


def stated(figure: Figure) -> dict[str, float]:
    values = {"value": figure.value, "error": figure.error, "spread": figure.spread}
    count = {} if figure.count is None else {"count": figure.count}
    return {name: float(value) for name, value in values.items() if value is not None} | count


def halves(real: FeatureSet) -> tuple[FeatureSet, FeatureSet]:
    """Two halves of the real images, chosen at random, the same each time."""
    order = torch.randperm(len(real), generator=fold_in(0, "halves", 0))
    return real[order[: len(real) // 2]], real[order[len(real) // 2 :]]


def noise_floor(
    metrics: Mapping[str, Metric],
    names: Mapping[str, str],
    compared: Compared,
    measured: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
    """The `measured` figures with one half of the real images in place of generated ones, against the other half.

    What cannot be measured on so few images is left out.
    """
    floor: dict[str, dict[str, float]] = {}
    for key, metric in metrics.items():
        first, second = halves(compared.real[names[key]])
        if min(len(first), len(second)) < metric.min_images:
            continue
        training = compared.training[names[key]] if metric.needs_training else None
        try:
            figures = metric.measure(Sets(first, second, training))
        except ValueError:  # too few images of a class
            continue
        for name, figure in figures.items():
            floor[name_beside(measured, name, key)] = {"count": len(first)} | stated(figure)
    return floor


def notes(metrics: Mapping[str, Metric], names: Mapping[str, str], compared: Compared) -> list[str]:
    """What a reader should know about these figures, each said once."""
    said = [note for key, metric in metrics.items() for note in metric.caveats(compared.sets(metric, names[key]))]
    kinds = {"generated": compared.generated, "real": compared.real, "training": compared.training}
    said += [
        f"all {len(images)} {kind} images have the same {name} features: figures from them mean nothing"
        for kind, by_name in kinds.items()
        for name, images in by_name.items()
        if collapsed(images.features)
    ]
    return list(dict.fromkeys(said))
