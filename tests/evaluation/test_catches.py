"""Real digits that are spoilt: each metric sees what it is for, and does not see what it is not for.

docs/evaluation.md has the whole table, from benchmark/metrics_catch.py.
"""

from collections.abc import Callable
from functools import cache

import pytest
from metrics_catch import CAUGHT, Floor, compare, trained
from spoilt import all_images, parts

from diffusion_lit.data import DigitsData
from diffusion_lit.feature import Pixels
from tests.launch import ALL_DIGITS

PLAINLY = 8.0
"""Standard deviations of the noise floor; the table marks what is `CAUGHT`, from 5."""

Compared = tuple[dict[str, Floor], dict[str, dict[str, float]]]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Compared]:
    @cache
    def by(feature: str) -> Compared:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DigitsData, "load", ALL_DIGITS)
            split = parts(all_images(mnist=None), num=600)
        if feature == "classifier":
            return compare(split, trained(split[0], 15_000, str(tmp_path_factory.mktemp("classifier"))))
        return compare(split, Pixels().eval())

    return by


def excess(compared: Compared, image_set: str) -> dict[str, float]:
    """How much worse each figure is, in standard deviations of its noise floor."""
    floors, figures = compared
    return {name: floor.excess(figures[image_set][name]) for name, floor in floors.items()}


CATCHES = {
    "blurred": {
        "classifier": [
            *("fid", "fid_infinity", "kid", "cmmd", "precision", "recall", "coverage", "fld"),
            "authenticity",  # on the other side of its target than copies
        ]
    },
    "noised": {"classifier": ["fid", "kid"], "pixels": ["fid", "precision", "density", "coverage", "fld"]},
    "JPEG": {
        "classifier": ["fid", "kid", "cmmd", "precision", "density", "fld"],
        "pixels": ["fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "fld"],
    },
    "flipped": {
        "classifier": ["fid", "kid", "cmmd", "precision", "recall", "fld", "inception_score"],
        "pixels": ["fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "fld"],
    },
    "class dropped": {"classifier": ["fid", "coverage"]},
    "duplicated": {
        "classifier": ["fid", "recall", "coverage", "vendi", "fld"],
        "pixels": ["fid", "recall", "coverage", "vendi"],
    },
    "memorized": {
        "classifier": ["fld", "authenticity", "ct_score", "copied", "closeness"],
        "pixels": ["fld", "authenticity", "ct_score", "copied", "closeness"],
    },
}
"""Image set -> features -> figures that are plainly worse than those of real images."""

BLIND = {
    "reference": ["fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "copied", "authenticity"],
    "memorized": ["fid", "fid_infinity", "kid", "cmmd", "precision", "recall", "density", "coverage"],
    "class dropped": ["precision", "density", "copied", "authenticity"],
    "blurred": ["copied"],
    "duplicated": ["copied"],
}
"""Image set -> figures that see nothing in it, of pixels and of a classifier's features."""


FEATURES = pytest.mark.parametrize("feature", ["pixels", pytest.param("classifier", marks=pytest.mark.slow)])


@FEATURES
@pytest.mark.parametrize("image_set", CATCHES)
def test_what_is_spoilt_is_caught(compared: Callable[[str], Compared], image_set: str, feature: str) -> None:
    worse = excess(compared(feature), image_set)
    assert {name: worse[name] for name in CATCHES[image_set].get(feature, []) if worse[name] < PLAINLY} == {}


@FEATURES
@pytest.mark.parametrize("image_set", BLIND)
def test_what_a_figure_cannot_see(compared: Callable[[str], Compared], image_set: str, feature: str) -> None:
    """FID and precision like copies of the training images; the share of copies is low for bad images."""
    worse = excess(compared(feature), image_set)
    assert {name: worse[name] for name in BLIND[image_set] if worse[name] > CAUGHT} == {}


@FEATURES
def test_the_frechet_distance_of_a_set_to_itself_is_zero(compared: Callable[[str], Compared], feature: str) -> None:
    _, figures = compared(feature)
    assert abs(figures["reference"]["fid"]) < 1e-6


@FEATURES
def test_the_figures_of_real_images_and_of_copies_are_what_papers_state(
    compared: Callable[[str], Compared], feature: str
) -> None:
    floors, figures = compared(feature)
    expected = {"density": 1, "coverage": 1 - 2**-5, "copied": 0.05, "closeness": 1}
    for name, value in expected.items():
        assert abs(floors[name].mean - value) < 0.06, name
    assert abs(floors["ct_score"].mean) < 1
    copies = figures["memorized"]
    assert copies["copied"] > 0.95 and copies["authenticity"] < 5 and copies["ct_score"] < -3
