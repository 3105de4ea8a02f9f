"""The Inception score, the Vendi score and shares of classes where they are known."""

import pytest
import torch
from pytest import approx
from torch import Tensor

from diffusion_lit.metrics import ClassHistogram, FeatureSet, InceptionScore, Sets, Vendi
from tests.metrics.features import Given, Sorter, compared, labelled, normal

CLASSES = torch.eye(7)


@pytest.mark.parametrize("certainty, expected", [(100.0, 7.0), (0.0, 1.0)])
def test_inception_score(certainty: float, expected: float) -> None:
    """Seven classes that are told apart without doubt, or not at all."""
    sets = compared(certainty * CLASSES.repeat(20, 1), CLASSES[:0])
    metric = InceptionScore(Sorter(), splits=1)
    assert not metric.needs_real and metric.min_images == 1
    figure = metric.measure(sets)["inception_score"]
    assert figure.value == approx(expected) and figure.error is None, "one part says nothing of others"


def test_the_inception_score_needs_a_classifier() -> None:
    InceptionScore(Sorter()).check()
    with pytest.raises(ValueError, match=r"Given gives none: use feature=inception"):
        InceptionScore(Given()).check()
    with pytest.raises(ValueError, match="splits must be at least 1"):
        InceptionScore(Given(), splits=0)


@pytest.mark.parametrize("repeats", [1, 3])
def test_vendi_score(repeats: int) -> None:
    """Seven kinds at right angles count as 7, however often they come and however long they are."""
    x = CLASSES.repeat(repeats, 1) * torch.arange(1, 7 * repeats + 1)[:, None]
    assert Vendi(Given()).measure(compared(x, x[:0]))["vendi"].value == approx(7)
    assert Vendi(Given()).measure(compared(x[:1].repeat(5, 1), x[:0]))["vendi"].value == approx(1)


def distance(generated: list[int], real: list[int]) -> float:
    sets = labelled((normal(0, len(generated), 2), generated), (normal(0, len(real), 2), real))
    return ClassHistogram(Given()).measure(sets)["class_distance"].value


def test_classes_by_labels() -> None:
    assert distance([0, 0, 1, 2], [0, 0, 1, 2] * 3) == 0
    assert distance([0, 0, 0, 0], [0, 1, 2, 3]) == approx(0.75)
    assert distance([5, 5], [0, 1]) == 1
    assert distance([10**15, 5], [5, 0]) == 0.5, "a number is not a place in memory"
    assert distance([0, 1, -1, -1], [1, 0, -1]) == 0, "negative labels are none"


def test_classes_by_a_classifier() -> None:
    """Whatever the labels say."""
    generated = FeatureSet(CLASSES[[0, 0, 1, 2]], torch.tensor([3, 3, 3, 3]))
    real = FeatureSet(CLASSES[[0, 1, 2, 3]])
    assert ClassHistogram(Sorter()).measure(Sets(generated, real))["class_distance"].value == approx(0.25)


@pytest.mark.parametrize("labels", [None, torch.tensor([-1, -1])])
def test_images_without_classes_are_refused(labels: Tensor | None) -> None:
    without, real = FeatureSet(normal(0, 2, 2), labels), FeatureSet(normal(0, 2, 2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="the generated images have no labels"):
        ClassHistogram(Given()).measure(Sets(without, real))
    with pytest.raises(ValueError, match="the real images have no labels"):
        ClassHistogram(Given()).measure(Sets(real, without))
