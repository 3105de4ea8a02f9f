"""Frechet distances that are known, references in files, and the bias of few images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor

from diffusion_lit.metrics import FIDInfinity, FrechetDistance
from diffusion_lit.metrics.frechet_distance import frechet_distance
from diffusion_lit.metrics.moments import moments, read_moments
from tests.metrics.features import Given, compared, normal


def rotated(variances: list[float], basis: Tensor) -> Tensor:
    return basis @ torch.tensor(variances, dtype=torch.float64).diag() @ basis.T


def fid(generated: Tensor, real: Tensor) -> float:
    return FrechetDistance(Given()).measure(compared(generated, real))["fid"].value


@pytest.mark.parametrize("a, b", [([1.0, 4.0, 9.0], [4.0, 4.0, 1.0]), ([1.0, 0.0, 9.0], [4.0, 0.0, 0.0])])
def test_gaussians_with_common_axes(a: list[float], b: list[float]) -> None:
    """|difference of means|^2 + sum over axes of (std_a - std_b)^2, of variances 0 too."""
    basis = torch.linalg.qr(normal(0, 3, 3).double()).Q
    mean_a, mean_b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 0.0, 0.0]).double()
    expected = 13 + sum((x**0.5 - y**0.5) ** 2 for x, y in zip(a, b, strict=True))
    assert frechet_distance(mean_a, rotated(a, basis), mean_b, rotated(b, basis)) == approx(expected, rel=1e-12)


def test_gaussians_in_two_dimensions() -> None:
    """tr (A B)^(1/2) is sqrt(tr(A B) + 2 sqrt(det A det B)) there, whatever the axes."""
    a, b = (x @ x.T for x in (normal(0, 2, 2).double(), normal(1, 2, 2).double()))
    cross = (torch.trace(a @ b) + 2 * (a.det() * b.det()).sqrt()).sqrt()
    zero = torch.zeros(2).double()
    assert frechet_distance(zero, a, zero, b) == approx(float(a.trace() + b.trace() - 2 * cross), rel=1e-10)


@pytest.mark.parametrize("num", [30, 200])
def test_equal_sets_are_at_distance_zero(num: int) -> None:
    """Of fewer images than features too, and of features of very different sizes."""
    x = normal(0, num, 64) * torch.logspace(-3, 1, 64) + 5
    assert abs(fid(x, x.clone())) < 1e-6
    assert abs(fid(x, x.flip(0))) < 1e-6


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.metrics.moments.ROWS", 7)
    x = normal(0, 50, 4) + 100
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-10)


def test_published_statistics_in_a_file(tmp_path: Path) -> None:
    generated, real = normal(0, 50, 4), normal(1, 60, 4)
    np.savez(tmp_path / "reference.npz", mu=moments(real).mean, sigma=moments(real).covariance)
    metric = FrechetDistance(Given(), reference=str(tmp_path / "reference.npz"))
    assert not metric.needs_real and FrechetDistance(Given()).needs_real
    assert metric.measure(compared(generated, real[:0])) == FrechetDistance(Given()).measure(compared(generated, real))
    with pytest.raises(ValueError, match=r"3 features and the reference has 4.*same feature extractor"):
        metric.measure(compared(normal(0, 50, 3), real[:0]))


def test_what_is_not_a_file_of_statistics_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", arr_0=np.zeros(3))
    np.savez(tmp_path / "square.npz", mu=np.zeros(3), sigma=np.zeros((3, 2)))
    np.savez(tmp_path / "pickled.npz", mu=np.array([{}], dtype=object), sigma=np.zeros((1, 1)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "folder.npz").mkdir()
    for name in ("images.npz", "pickled.npz", "array.npy", "text.npz", "nowhere.npz", "folder.npz"):
        with pytest.raises(ValueError, match=rf"{name} must be an .npz file with the arrays mu"):
            read_moments(tmp_path / name)
    with pytest.raises(ValueError, match=r"got \[3\] and \[3, 2\]"):
        read_moments(tmp_path / "square.npz")
    np.savez(tmp_path / "nan.npz", mu=np.array([0, np.nan]), sigma=np.eye(2))
    np.savez(tmp_path / "infinite.npz", mu=np.zeros(2), sigma=np.full((2, 2), np.inf))
    for name in ("nan.npz", "infinite.npz"):
        with pytest.raises(ValueError, match=rf"{name} holds numbers that are not finite"):
            read_moments(tmp_path / name)


def test_images_of_different_features_are_refused() -> None:
    with pytest.raises(ValueError, match="have 4 features and the reference has 3"):
        fid(normal(0, 9, 4), normal(0, 9, 3))


def test_a_singular_covariance_is_reported() -> None:
    few, many = normal(0, 4, 4), normal(0, 5, 4)
    metric = FrechetDistance(Given())
    assert metric.caveats(compared(many, many)) == []
    [caveat] = metric.caveats(compared(few, many))
    assert "4 generated images is singular" in caveat
    assert len(metric.caveats(compared(few, few))) == 2


def test_fid_infinity_removes_the_bias_of_few_images() -> None:
    """500 against 5000 of the same distribution: its FID is over 0.5 and the limit within a fifth of that of zero."""
    real = normal(0, 5000, 32)
    for seed in (1, 2):
        sets = compared(normal(seed, 500, 32), real)
        biased = fid(sets.generated.features, real)
        figure = FIDInfinity(Given()).measure(sets)["fid_infinity"]
        assert biased > 0.5 and abs(figure.value) < biased / 5
        assert FIDInfinity(Given()).measure(sets)["fid_infinity"] == figure
        assert FIDInfinity(Given(), seed=1).measure(sets)["fid_infinity"] != figure


def test_a_line_through_singular_covariances_is_reported() -> None:
    real = normal(0, 100, 4)
    [caveat] = FIDInfinity(Given()).caveats(compared(normal(1, 49, 4), real))
    assert "starts at 4 images" in caveat and "over 40 images" in caveat
    assert FIDInfinity(Given()).caveats(compared(normal(1, 50, 4), real)) == []


def test_a_line_needs_two_points() -> None:
    with pytest.raises(ValueError, match="num_points must be at least 2"):
        FIDInfinity(Given(), num_points=1)
