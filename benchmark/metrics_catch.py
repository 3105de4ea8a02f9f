"""Which metric catches what: real images, spoilt in known ways, stand in for generated ones.

    python benchmark/metrics_catch.py [--mnist ROOT] [--num 2000]

The real images, scikit-learn's 8 x 8 digits or torchvision's MNIST in ROOT, are dealt out into three parts: training,
held-out and fresh. Held-out images are what is compared with. Fresh ones are spoilt; besides, the reference itself and
noised copies of the training images stand in for generated ones. The noise floor of a figure is its mean and standard
deviation over other deals of the same images, nothing spoilt. Prints Markdown tables, in which figures that are more
than 5 standard deviations worse than the floor are bold. Nothing is downloaded.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from spoilt import all_images, parts, spoilt

from diffusion_lit import metrics as m
from diffusion_lit.data import ArrayImages
from diffusion_lit.feature import Classifier, FeatureExtractor, LabelClassifier, Pixels, RandomVGG

DEALS = 10
CAUGHT = 5.0
"""Standard deviations of the noise floor."""


@dataclass(frozen=True)
class Floor:
    """A figure of real images: its mean and standard deviation over deals."""

    mean: float
    std: float
    better: m.Better

    def excess(self, value: float) -> float:
        """How many standard deviations `value` is worse."""
        away = value - self.mean
        return {"lower": away, "higher": -away}.get(str(self.better), abs(away)) / self.std


def metrics_of(extractor: FeatureExtractor, num: int) -> list[m.Metric]:
    """All that can be measured on `num` images of each part."""
    every: list[m.Metric] = [
        m.FrechetDistance(extractor),
        m.FIDInfinity(extractor),
        m.KernelDistance(extractor, num_subsets=20, subset_size=num // 3),
        m.CMMD(extractor),
        m.PrecisionRecall(extractor),
        m.DensityCoverage(extractor),
        m.Vendi(extractor),
        m.FeatureLikelihoodDivergence(extractor),
        m.Authenticity(extractor),
        m.CTScore(extractor),
        m.NearestNeighbour(extractor),
    ]
    return every + (
        [m.ClassHistogram(extractor), m.InceptionScore(extractor)] if isinstance(extractor, Classifier) else []
    )


@torch.no_grad()
def seen(images: ArrayImages, extractor: FeatureExtractor) -> m.FeatureSet:
    return m.FeatureSet(torch.cat([extractor(batch) for batch in images.images.split(250)]))


def deals(real: list[m.FeatureSet]) -> Iterator[m.Sets]:
    """The images of all parts, dealt out anew."""
    features = torch.cat([part.features for part in real])
    for seed in range(DEALS):
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        yield m.Sets(*(m.FeatureSet(features[own]) for own in order.chunk(3)))


def compare(
    split: list[ArrayImages], extractor: FeatureExtractor
) -> tuple[dict[str, Floor], dict[str, dict[str, float]]]:
    """Each figure's noise floor, and all figures of each spoilt set."""
    real = [seen(images, extractor) for images in split]
    sets = {name: m.Sets(seen(own, extractor), real[1], real[0]) for name, own in spoilt(*split).items()}
    floors: dict[str, Floor] = {}
    figures: dict[str, dict[str, float]] = {name: {} for name in sets}
    for metric in metrics_of(extractor, len(split[0])):
        for name, own in sets.items():
            measured = metric.measure(own)
            figures[name] |= {key: figure.value for key, figure in measured.items()}
        found = [values(metric, own) for own in deals(real)]
        for name, figure in measured.items():
            several = np.array([own[name] for own in found])
            better = metric.better if figure.better is None else figure.better
            floors[name] = Floor(float(several.mean()), float(several.std(ddof=1)), better)
    return floors, figures


def values(metric: m.Metric, sets: m.Sets) -> dict[str, float]:
    return {name: figure.value for name, figure in metric.measure(sets).items()}


def table(feature: str, floors: Mapping[str, Floor], figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {feature} | noise floor | {' | '.join(figures)} |", f"| --- | --- |{' --- |' * len(figures)}"]
    for name, floor in floors.items():
        cells = []
        for own in figures.values():
            bold = "**" if floor.excess(own[name]) > CAUGHT else ""
            cells.append(f"{bold}{own[name]:.3g}{bold}")
        lines.append(f"| `{name}` | {floor.mean:.3g} ± {floor.std:.1g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def trained(training: ArrayImages, num_images: int, folder: str) -> LabelClassifier:
    classifier = LabelClassifier(num_images=num_images, cache=folder)
    classifier.prepare([(training.images, training.labels)], num_classes=10, content_hash="")
    return classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", metavar="ROOT", help="a folder that holds MNIST/raw; else scikit-learn's digits")
    parser.add_argument("--num", type=int, default=2000, help="images of each part, at most")
    args = parser.parse_args()
    split = parts(all_images(args.mnist), args.num)
    print(f"{len(split[0])} images of {split[0].images.shape[-1]} pixels in each part\n")
    with tempfile.TemporaryDirectory() as folder:
        for extractor in (RandomVGG(), Pixels(), trained(split[0], 100_000, folder)):
            print(table(extractor.name, *compare(split, extractor.eval())), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
