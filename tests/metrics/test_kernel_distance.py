"""Kernel distances that are known."""

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor

from diffusion_lit.metrics import CMMD, KernelDistance
from tests.metrics.features import Given, compared, normal


def kid(seed: int, num: int, shift: float = 0.0) -> tuple[float, float]:
    generated, real = normal(2 * seed, num, 8) + shift, normal(2 * seed + 1, num, 8)
    figure = KernelDistance(Given(), num_subsets=50, subset_size=100).measure(compared(generated, real))["kid"]
    assert figure.error is not None
    return figure.value, figure.error


@pytest.mark.parametrize("num", [300, 1500])
def test_equal_distributions_are_at_zero_within_the_standard_error(num: int) -> None:
    """Where subsets share images too: 50 of 100 images each, of 300."""
    figures = np.array([kid(seed, num) for seed in range(8)])
    scores = figures[:, 0] / figures[:, 1]
    assert np.abs(scores).max() < 3 and abs(scores.mean()) < 3 / np.sqrt(8)
    value, error = kid(0, num, 0.5)
    assert value > 5 * error


def test_means_that_differ() -> None:
    """With degree 1, MMD^2 is |difference of means|^2 / d."""
    sets = compared(normal(0, 2000, 8) + 0.5, normal(1, 2000, 8))
    figure = KernelDistance(Given(), num_subsets=20, subset_size=500, degree=1).measure(sets)["kid"]
    assert figure.error is not None and abs(figure.value - 0.25) < 3 * figure.error < 0.1


def test_subsets_that_share_most_images_have_no_standard_error() -> None:
    metric = KernelDistance(Given(), num_subsets=5, subset_size=100)
    for num, stated in ((199, False), (200, True)):
        figure = metric.measure(compared(normal(0, num, 8), normal(1, 300, 8)))["kid"]
        assert (figure.error is not None) == stated and figure.spread is not None and figure.spread > 0


def test_too_few_images_are_refused() -> None:
    metric = KernelDistance(Given())
    assert metric.min_images == 1000
    with pytest.raises(ValueError, match=r"subset_size=1000 is more than the 400 .* metrics.kid.subset_size"):
        metric.measure(compared(normal(0, 400, 4), normal(0, 2000, 4)))


@pytest.mark.parametrize("setting", ["num_subsets", "subset_size", "degree"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="published figures have 100, 1000 and 3"):
        KernelDistance(Given(), **{setting: 0})


def cmmd(generated: Tensor, real: Tensor) -> float:
    return CMMD(Given()).measure(compared(generated, real))["cmmd"].value


def test_cmmd_of_two_points() -> None:
    """1000 (1 + 1 - 2 exp(-|x - y|^2 / 200)), |x - y|^2 = 2 for directions at right angles, whatever the lengths."""
    x, y = torch.tensor([[3.0, 0.0]] * 4), torch.tensor([[0.0, 0.2]] * 3)
    assert cmmd(x, y) == approx(2000 * (1 - np.exp(-0.01)), rel=1e-6)


def test_cmmd_of_equal_sets() -> None:
    x = normal(0, 50, 6)
    assert abs(cmmd(x, x.flip(0))) < 1e-6


def test_a_bandwidth_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma must be positive"):
        CMMD(Given(), sigma=0)
