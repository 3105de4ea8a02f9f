"""How often each class is generated."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lit.feature import Classifier, FeatureExtractor
from diffusion_lit.metrics.base import FeatureSet, Figure, Metric, Sets
from diffusion_lit.metrics.classification import logits

__all__ = ["ClassHistogram"]


@dataclass
class ClassHistogram(Metric):
    """The total variation distance sum_c |p_c - q_c| / 2 between the shares of the classes among generated and real
    images: 0 to 1.

    Classes are what the extractor takes the images for, if it is a Classifier, and otherwise their labels, of which
    negative ones stand for none. Labels that a model was asked for are refused: they are in the proportions in which
    they were chosen, whatever the images show.

    Args:
        extractor: maps images to features.
    """

    extractor: FeatureExtractor

    def check_labels(self, sets: Sets) -> None:
        if not isinstance(self.extractor, Classifier):
            self.classes(sets.generated, "generated")
            self.classes(sets.real, "real")
            if sets.generated.asked:
                raise ValueError(
                    "class_histogram would compare the classes that the model was asked for, and not what its images "
                    f"show, which {type(self.extractor).__name__} does not classify: use feature=classifier, or leave "
                    "class_histogram out of metrics"
                )

    def caveats(self, sets: Sets) -> list[str]:
        if isinstance(self.extractor, Classifier):
            return []
        return [
            "class_distance compares the labels that came with the images: it says nothing of what they show, if the "
            "generated ones have those that a model was asked for. feature=classifier recognises classes"
        ]

    def measure(self, sets: Sets) -> dict[str, Figure]:
        generated, real = self.classes(sets.generated, "generated"), self.classes(sets.real, "real")
        classes, numbers = torch.cat([generated, real]).unique(return_inverse=True)  # type: ignore[no-untyped-call] # of any size
        both = numbers.split([len(generated), len(real)])
        p, q = (torch.bincount(x, minlength=len(classes)).double() / len(x) for x in both)
        return {"class_distance": Figure(float((p - q).abs().sum() / 2))}

    def classes(self, images: FeatureSet, kind: str) -> Tensor:
        """The images' classes, int64 [N]; a ValueError where they have none."""
        if isinstance(self.extractor, Classifier):
            return logits(self.extractor, images.features).argmax(1)
        labels = images.labels if images.labels is None else images.labels[images.labels >= 0]
        if labels is None or len(labels) == 0:
            raise ValueError(
                f"class_histogram: the {kind} images have no labels, and {type(self.extractor).__name__} does not "
                "classify them: use feature=inception, or leave class_histogram out of metrics"
            )
        return labels
