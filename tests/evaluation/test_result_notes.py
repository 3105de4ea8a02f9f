"""What a report says of the features that its figures are from."""

import torch

from diffusion_lit.evaluation.figures import Compared, notes
from diffusion_lit.metrics import FeatureSet, Vendi
from tests.metrics.features import Given, normal


def test_features_that_are_all_alike_stand_below_the_figures() -> None:
    """Where they are read, and not on the terminal alone."""
    varied, alike, none = FeatureSet(normal(0, 9, 3)), FeatureSet(torch.ones(7, 3)), FeatureSet(torch.empty(0, 1))
    compared = Compared({"x": alike, "y": varied}, {"x": varied, "y": alike}, {"x": none, "y": none})
    assert notes({"vendi": Vendi(Given())}, {"vendi": "x"}, compared) == [
        "all 7 generated images have the same x features: figures from them mean nothing",
        "all 7 real images have the same y features: figures from them mean nothing",
    ]
