"""Distances, a few rows at a time, against all at once in float64."""

import pytest
import torch

from diffusion_lit.metrics.distance import count_spheres, nearest, radii
from tests.metrics.features import normal

X, Y = normal(0, 60, 5), normal(1, 70, 5)
DISTANCES = torch.cdist(X.double(), Y.double(), compute_mode="donot_use_mm_for_euclid_dist")


@pytest.fixture(params=[1, 7 * 70, 2**22], autouse=True)
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.metrics.distance.CHUNK", request.param)


def test_nearest() -> None:
    expected = DISTANCES.topk(3, largest=False)
    distances, indices = nearest(X, Y, 3)
    torch.testing.assert_close(distances.double(), expected.values)
    assert torch.equal(indices, expected.indices)


def test_an_image_is_not_its_own_neighbour() -> None:
    within = torch.cdist(X.double(), X.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(radii(X, 2).double(), within.sort(dim=1).values[:, 2])
    assert not (nearest(X, X, exclude_self=True)[1].squeeze(1) == torch.arange(60)).any()


def test_spheres() -> None:
    radius = DISTANCES.median(0).values + 1e-3
    assert torch.equal(count_spheres(X, Y, radius.float()), DISTANCES.le(radius).sum(1))


def test_copies_are_at_distance_zero() -> None:
    """Even where features are far from zero, and float32 products lose the distance."""
    far = X + 1000
    distances, indices = nearest(far, far.flip(0))
    assert (distances == 0).all() and torch.equal(indices.squeeze(1), torch.arange(59, -1, -1))
