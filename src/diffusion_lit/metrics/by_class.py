"""A metric of each class by itself."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from diffusion_lit.metrics.base import Figure, Metric, Sets

__all__ = ["ByClass"]


@dataclass
class ByClass(Metric):
    """Another metric's figures of each class that the real images have, and their mean over classes.

    The mean of `fid` is known as intra-FID (Miyato & Koyama 2018, section 4, arXiv:1802.05637).

    Args:
        metric: what is measured. It must read real images, whose labels say which classes there are; a ValueError
            otherwise.
    """

    metric: Metric
    of_each_class = True

    def __post_init__(self) -> None:
        if not self.metric.needs_real:
            raise ValueError(
                f"by class, {type(self.metric).__name__} must read the real images of each class, and does not: a "
                "reference's statistics are of all classes; leave the reference, or the metric, out"
            )
        self.extractor, self.better = self.metric.extractor, self.metric.better
        self.min_images, self.needs_training = self.metric.min_images, self.metric.needs_training
        self.fewer = self.metric.fewer and f"metric.{self.metric.fewer}"

    def check(self) -> None:
        self.metric.check()

    def check_labels(self, sets: Sets) -> None:
        self.classes(sets)

    def caveats(self, sets: Sets) -> list[str]:
        said = [f"class {c}: {caveat}" for c, own in self.classes(sets) for caveat in self.metric.caveats(own)]
        return said if len(said) < 3 else [said[0], f"and so in other classes ({len(said) - 1} such notes)"]

    def measure(self, sets: Sets) -> dict[str, Figure]:
        by_class = {
            c: {name: replace(figure, count=len(own.generated)) for name, figure in self.metric.measure(own).items()}
            for c, own in self.classes(sets)
        }
        figures = {f"{name}_class_{c}": figure for c, own in by_class.items() for name, figure in own.items()}
        means = {}
        for name, one in next(iter(by_class.values())).items():
            mean = float(np.mean([own[name].value for own in by_class.values()]))
            means[f"{name}_by_class"] = Figure(mean, better=one.better)
        return means | figures

    def classes(self, sets: Sets) -> list[tuple[int, Sets]]:
        """Each class and its sets; a ValueError where images have no labels, or a class has too few images."""
        kinds = {"real": sets.real, "generated": sets.generated}
        if self.needs_training:
            assert sets.training is not None
            kinds["training"] = sets.training
        unlabelled = [kind for kind, images in kinds.items() if images.labels is None]
        if unlabelled:
            raise ValueError(
                f"by class, {type(self.metric).__name__} needs labels, which the {' and '.join(unlabelled)} images "
                "lack: take a model and data with classes, or leave it out of metrics"
            )
        assert sets.real.labels is not None
        found = []
        for c in torch.unique(sets.real.labels[sets.real.labels >= 0]).tolist():
            own = {kind: images[images.labels == c] for kind, images in kinds.items()}
            for kind, images in own.items():
                if len(images) < self.min_images:
                    raise ValueError(
                        f"by class, {type(self.metric).__name__} needs at least {self.min_images} images of each "
                        f"class, but class {c} has {len(images)} {kind} ones: take more images"
                    )
            found.append((c, Sets(own["generated"], own["real"], own.get("training"))))
        return found
