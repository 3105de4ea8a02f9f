"""Precision, recall, density and coverage where they are known."""

import pytest
import torch
from pytest import approx

from diffusion_lit.metrics import DensityCoverage, Metric, PrecisionRecall, Sets
from tests.metrics.features import Given, compared, normal


def values(metric: Metric, sets: Sets) -> list[float]:
    return [figure.value for figure in metric.measure(sets).values()]


def test_equal_distributions() -> None:
    """The expected density is 1, the coverage 1 - 2^-k (Naeem et al. 2020, section 3.3)."""
    figures = [
        values(DensityCoverage(Given(), k=2), compared(normal(2 * seed, 1000, 3), normal(2 * seed + 1, 1000, 3)))
        for seed in range(4)
    ]
    density, coverage = torch.tensor(figures).mean(0).tolist()
    assert density == approx(1, abs=0.03) and coverage == approx(0.75, abs=0.02)


def test_part_of_the_distribution() -> None:
    """Of two far clusters one is generated: precise, but half is not recalled or covered."""
    near, far = normal(0, 200, 3), normal(1, 200, 3) + 100
    sets = compared(normal(2, 300, 3) / 10, torch.cat([near, far]))
    precision, recall = values(PrecisionRecall(Given()), sets)
    _, coverage = values(DensityCoverage(Given()), sets)
    assert precision > 0.98 and recall < 0.5 and coverage <= 0.5
    precision, recall = values(PrecisionRecall(Given()), Sets(sets.real, sets.generated))
    assert precision < 0.5 and recall > 0.98


def test_duplicates_lie_in_their_spheres() -> None:
    """Six copies of each image: every sphere's radius is 0, and rounding must not put its own centre outside of it."""
    features = 10 + normal(0, 300, 64).repeat(6, 1)
    assert values(PrecisionRecall(Given()), compared(features, features)) == [1, 1]
    assert values(DensityCoverage(Given()), compared(features, features))[1] == 1
    foreign = features + 1e-2 * normal(1, 1800, 64)
    assert values(PrecisionRecall(Given()), compared(foreign, features))[0] == 0


def test_foreign_images() -> None:
    sets = compared(normal(0, 100, 3), normal(1, 100, 3) + 100)
    assert values(PrecisionRecall(Given()), sets) == values(DensityCoverage(Given()), sets) == [0, 0]


@pytest.mark.parametrize("kind", [PrecisionRecall, DensityCoverage])
def test_a_neighbour_that_does_not_exist_is_refused(kind: type[PrecisionRecall | DensityCoverage]) -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        kind(Given(), k=0)
    assert kind(Given(), k=7).min_images == 8
