"""Figures of each class by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import approx

from diffusion_lit.metrics import Authenticity, ByClass, FeatureSet, FrechetDistance, NearestNeighbour, Sets, Vendi
from tests.metrics.features import Given, compared, labelled, normal

LABELS = [0, 2] * 20


def test_each_class_is_measured_by_itself() -> None:
    """The classes are exchanged: overall the features are the same, by class they are not."""
    x = normal(0, 40, 3) + 10 * torch.tensor(LABELS)[:, None]
    sets = labelled((x, LABELS), (x.flip(0), LABELS))
    assert abs(FrechetDistance(Given()).measure(sets)["fid"].value) < 1e-6
    figures = ByClass(FrechetDistance(Given())).measure(sets)
    assert list(figures) == ["fid_by_class", "fid_class_0", "fid_class_2"]
    for c in (0, 2):
        own = torch.tensor(LABELS) == c
        alone = FrechetDistance(Given()).measure(compared(x[own], x.flip(0)[own]))["fid"].value
        assert figures[f"fid_class_{c}"].value == alone > 300 and figures[f"fid_class_{c}"].count == 20
    assert figures["fid_by_class"].value == approx((figures["fid_class_0"].value + figures["fid_class_2"].value) / 2)


def test_training_images_are_of_the_class_too() -> None:
    x, labels = normal(0, 40, 3), torch.tensor(LABELS)
    sets = Sets(*[FeatureSet(x + shift, labels) for shift in (0, 1)], FeatureSet(x.roll(1, 0), labels))
    metric = ByClass(NearestNeighbour(Given()))
    assert metric.needs_training and metric.better == "lower"
    figures = metric.measure(sets)
    assert figures["copied_by_class"].value < 1, "the copies are of the other class"
    assert figures["copied_by_class"].better == figures["copied_class_0"].better == 0.05


def test_what_cannot_be_measured_by_class_is_refused(tmp_path: Path) -> None:
    metric = ByClass(FrechetDistance(Given()))
    with pytest.raises(ValueError, match="labels, which the real and generated images lack"):
        metric.measure(compared(normal(0, 4, 2), normal(0, 4, 2)))
    few = labelled((normal(0, 4, 2), [0, 0, 0, 1]), (normal(0, 4, 2), [0, 0, 1, 1]))
    with pytest.raises(ValueError, match="at least 2 images of each class, but class 1 has 1 generated ones"):
        metric.measure(few)
    np.savez(tmp_path / "all.npz", mu=np.zeros(2), sigma=np.eye(2))
    for other in (Vendi(Given()), Authenticity(Given()), FrechetDistance(Given(), reference=str(tmp_path / "all.npz"))):
        with pytest.raises(ValueError, match="must read the real images of each class"):
            ByClass(other)


def test_caveats_name_their_class() -> None:
    sets = labelled((normal(0, 8, 5), [0, 1] * 4), (normal(1, 18, 5), [0, 1] * 9))
    caveats = ByClass(FrechetDistance(Given())).caveats(sets)
    assert [caveat.split(":")[0] for caveat in caveats] == ["class 0", "class 1"]
    sets = labelled((normal(0, 40, 5), [*range(20)] * 2), (normal(1, 40, 5), [*range(20)] * 2))
    one, rest = ByClass(FrechetDistance(Given())).caveats(sets)
    assert one.startswith("class 0: ") and rest == "and so in other classes (39 such notes)", "of either set"
