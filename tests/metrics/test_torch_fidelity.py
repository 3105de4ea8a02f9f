"""torch-fidelity's functions, on the same features."""

import numpy as np
import pytest
from pytest import approx
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffusion_lit.metrics import FrechetDistance, InceptionScore, KernelDistance, PrecisionRecall
from tests.metrics.features import Given, Sorter, compared, normal

MIXING = normal(0, 16, 16) / 4
GENERATED, REAL = 0.9 * normal(1, 700, 16) @ MIXING + 0.1, normal(2, 600, 16) @ MIXING
SETS = compared(GENERATED, REAL)


@pytest.mark.parametrize("num", [700, 10])
def test_fid(num: int) -> None:
    """Of ten images too, whose covariance is singular."""
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(GENERATED[:num]), fid_features_to_statistics(REAL), False
    )
    ours = FrechetDistance(Given()).measure(compared(GENERATED[:num], REAL))["fid"].value
    assert ours == approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_kid() -> None:
    theirs = kid_features_to_metric(GENERATED, REAL, kid_subsets=20, kid_subset_size=200, verbose=False)
    ours = KernelDistance(Given(), num_subsets=20, subset_size=200).measure(SETS)["kid"]
    assert ours.value == approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.spread == approx(theirs["kernel_inception_distance_std"], rel=1e-4)
    assert ours.error == approx(ours.spread / np.sqrt(3), rel=1e-9), "600 images fill three subsets of 200"


def test_the_standard_error_of_few_subsets_is_theirs() -> None:
    figure = KernelDistance(Given(), num_subsets=2, subset_size=200).measure(SETS)["kid"]
    assert figure.error == approx(figure.spread / np.sqrt(2), rel=1e-9)


@pytest.mark.parametrize("splits", [10, 3, 1])
def test_inception_score(splits: int) -> None:
    """The images of three parts are not equally many."""
    theirs = isc_features_to_metric(GENERATED, splits)
    ours = InceptionScore(Sorter(), splits).measure(SETS)["inception_score"]
    assert ours.value == approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.spread == approx(theirs["inception_score_std"], rel=1e-5)
    assert ours.error == (approx(ours.spread / np.sqrt(splits), rel=1e-9) if splits > 1 else None)


@pytest.mark.parametrize("k", [3, 1])
def test_precision_and_recall(k: int) -> None:
    theirs = prc_features_to_metric(GENERATED, REAL, prc_neighborhood=k, verbose=False)
    ours = {name: figure.value for name, figure in PrecisionRecall(Given(), k).measure(SETS).items()}
    assert ours == approx({name: theirs[name] for name in ("precision", "recall")}, rel=1e-6)
    assert 0.2 < ours["precision"] < 1 and 0.2 < ours["recall"] < 1


def test_precision_and_recall_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PrecisionRecall(Given()).measure(SETS)
    monkeypatch.setattr("diffusion_lit.metrics.distance.CHUNK", 7 * 700)
    assert PrecisionRecall(Given()).measure(SETS) == whole
