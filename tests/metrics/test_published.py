"""The numbers that published code gives, in published.json, against ours; README.md says how they were made."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest import approx

from diffusion_lit.metrics import (
    CMMD,
    Authenticity,
    CTScore,
    DensityCoverage,
    FeatureLikelihoodDivergence,
    FIDInfinity,
    FrechetDistance,
    PrecisionRecall,
    Vendi,
)
from diffusion_lit.metrics.kernel_distance import unbiased_mmd
from diffusion_lit.metrics.mixture import ImageMixture
from tests.metrics.features import Given, clustered, compared

TRAINING, HELD_OUT, GENERATED = clustered(0, 12)
SETS = compared(GENERATED, HELD_OUT, TRAINING)


@cache
def numbers() -> Any:
    return json.loads((Path(__file__).parent / "published.json").read_text())


def test_frechet_distance() -> None:
    fid = FrechetDistance(Given()).measure(SETS)["fid"].value
    assert fid == approx(numbers()["pytorch_fid"]["fid"], rel=1e-9)
    assert fid == approx(numbers()["clean_fid"]["fid"], rel=1e-9)
    assert fid == approx(numbers()["dgm_eval"]["fd"], rel=1e-9)


def test_fid_infinity() -> None:
    figures = FIDInfinity(Given(), seed=0).measure(SETS)
    assert figures["fid_infinity"].value == approx(numbers()["dgm_eval"]["fd_infinity"], rel=1e-7)


def test_kernel_distance_of_whole_sets() -> None:
    value = float(unbiased_mmd(GENERATED[:300], HELD_OUT))
    assert value == approx(numbers()["clean_fid"]["kid_whole"], rel=1e-9)
    assert value == approx(numbers()["dgm_eval"]["mmd_whole"], rel=1e-9)


def test_precision_recall_density_and_coverage() -> None:
    figures = PrecisionRecall(Given(), k=5).measure(SETS) | DensityCoverage(Given()).measure(SETS)
    assert {name: figure.value for name, figure in figures.items()} == approx(numbers()["dgm_eval"]["prdc"], rel=1e-9)


def test_cmmd() -> None:
    assert CMMD(Given()).measure(SETS)["cmmd"].value == approx(numbers()["cmmd"]["cmmd"], rel=1e-8)


def test_authenticity() -> None:
    value = Authenticity(Given()).measure(SETS)["authenticity"].value
    assert value == approx(numbers()["dgm_eval"]["authpct"], rel=1e-6)
    assert value - 50 == approx(numbers()["fld"]["authpct_less_50"], rel=1e-6)


def test_ct_score() -> None:
    assert CTScore(Given()).measure(SETS)["ct_score"].value == approx(numbers()["dgm_eval"]["ct_score"], rel=1e-9)


def test_ct_score_of_principal_components() -> None:
    training, held_out, generated = clustered(1, 80)
    value = CTScore(Given()).measure(compared(generated, held_out, training))["ct_score"].value
    assert value == approx(numbers()["dgm_eval"]["wide"]["ct_score"], rel=1e-9)


@pytest.mark.parametrize("max_generated, key", [(10_000, "fld"), (150, "fld_of_150")])
def test_feature_likelihood_divergence(max_generated: int, key: str) -> None:
    figures = FeatureLikelihoodDivergence(Given(), max_generated=max_generated, seed=0).measure(SETS)
    assert figures["fld"].value == approx(numbers()["fld"][key], rel=1e-6)
    if key == "fld":
        assert figures["fld_gap"].value == approx(numbers()["fld"]["fld_gap"], rel=1e-6)


def test_fitted_bandwidths() -> None:
    """Copies get narrow Gaussians: 90 to 99 are copies, 100 to 109 are not."""
    mixture = ImageMixture(GENERATED).fit(TRAINING, np.random.RandomState(0))
    expected = torch.tensor(numbers()["fld"]["log_variances_90_to_109"], dtype=torch.float64)
    torch.testing.assert_close(mixture.log_variances[90:110], expected, rtol=1e-5, atol=1e-5)
    assert mixture.nll(HELD_OUT) == approx(numbers()["fld"]["nll_without_normalizing"], rel=1e-6)


def test_vendi() -> None:
    assert Vendi(Given()).measure(SETS)["vendi"].value == approx(numbers()["vendi_score"]["x"], rel=1e-9)
    assert numbers()["vendi_score"]["x"] == approx(numbers()["dgm_eval"]["vendi"], rel=1e-9)
    wide = compared(clustered(1, 80)[2][:60], HELD_OUT)
    assert Vendi(Given()).measure(wide)["vendi"].value == approx(numbers()["vendi_score"]["wide_x"], rel=1e-9)
