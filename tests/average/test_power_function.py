"""Power-function averages: against the public code's numbers, and against averages of a known trajectory."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_lit.average.power_function import UNIFORM, check_std, decay, exponent, profile_error, solve

PUBLIC = json.loads((Path(__file__).parents[1] / "reference" / "edm2_averages.json").read_text())


def test_exponents_and_decays_are_the_public_code_s() -> None:
    for std, expected in PUBLIC["exponents"]:
        assert exponent(std) == pytest.approx(expected, rel=1e-12)
    for std, step, expected in PUBLIC["decays"]:
        assert decay(std, step) == pytest.approx(expected, rel=1e-12)


def test_a_length_is_the_standard_deviation_of_its_profile() -> None:
    t = (np.arange(100_000) + 0.5) / 100_000
    for std in (0.02, 0.1, 0.25, UNIFORM):
        profile = t ** exponent(std)
        profile /= profile.sum()
        mean = (profile * t).sum()
        assert np.sqrt((profile * (t - mean) ** 2).sum()) == pytest.approx(std, rel=1e-4)
    assert exponent(UNIFORM) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("case", PUBLIC["coefficients"], ids=lambda case: f"{case['std']} of {len(case['steps'])}")
def test_coefficients_are_the_public_code_s(case: dict[str, list[float]]) -> None:
    found = solve(case["steps"], case["stds"], case["step"], case["std"])  # type: ignore[arg-type]
    np.testing.assert_allclose(found, case["values"], rtol=1e-7, atol=1e-9)
    assert found.sum() == pytest.approx(1, abs=1e-12)


def tracked(weights: np.ndarray, std: float) -> np.ndarray:
    """The average after each step, by its recursion."""
    average, after, power = np.zeros(weights.shape[1:]), [], exponent(std) + 1
    for step, w in enumerate(weights, start=1):
        beta = (1 - 1 / step) ** power
        average = beta * average + (1 - beta) * w
        after.append(average)
    return np.array(after)


def test_the_first_weights_are_forgotten_and_the_profile_is_a_power() -> None:
    """Of weights that are 1 at a single step, the average is the profile there: t^gamma to first order in 1 / t."""
    std, steps = 0.1, 400
    profile = tracked(np.eye(steps), std)[-1]
    t = np.arange(1, steps + 1)
    expected = t ** exponent(std)
    assert profile.sum() == pytest.approx(1)
    assert np.abs(profile / profile.max() - expected / expected.max()).max() < exponent(std) / steps


@pytest.mark.parametrize("std", [0.03, 0.075, 0.13, 0.2])
def test_a_reconstruction_nears_the_tracked_average_with_the_number_of_snapshots(std: float) -> None:
    """Weights on a noisy way to their goal: the difference, over the spread of the weights, is under the profile's."""
    generator, steps = np.random.default_rng(0), 480
    t = np.arange(1, steps + 1)[:, None] / steps
    weights = 1 / (0.1 + t) + np.sin(9 * t + np.arange(50)) + 0.3 * generator.standard_normal((steps, 50))
    direct, short, long = (tracked(weights, each) for each in (std, 0.05, 0.1))
    errors = []
    for count in (4, 8, 16, 32):
        at = [steps * (i + 1) // count for i in range(count)]
        places, stds = [*at, *at], [*[0.05] * count, *[0.1] * count]
        coefficients = solve(places, stds, steps, std)
        made = coefficients @ np.concatenate([short, long])[[*(n - 1 for n in at), *(n - 1 + steps for n in at)]]
        errors.append(float(np.sqrt(((made - direct[-1]) ** 2).mean()) / weights.std()))
        assert errors[-1] < 0.004 + profile_error(coefficients, places, stds, steps, std)
    assert errors[-1] < min(0.02, errors[0] / 5)


def test_a_tracked_length_is_itself() -> None:
    steps, stds = [100, 200, 300, 100, 200, 300], [0.05] * 3 + [0.1] * 3
    np.testing.assert_allclose(solve(steps, stds, 300, 0.1), [0, 0, 0, 0, 0, 1], atol=1e-9)
    assert profile_error(solve(steps, stds, 300, 0.1), steps, stds, 300, 0.1) < 1e-6
    assert profile_error(np.array([0, 0, 0, 0, 0, 1.25]), steps, stds, 300, 0.1) == pytest.approx(0.25)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.3])
def test_what_is_no_length_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match=rf"weights=power_x .* over 0 and at most 0\.2887, got {std}"):
        check_std(std, "weights=power_x")
    assert [check_std(length, "weights=power_x") for length in (0.1, UNIFORM)] == [0.1, UNIFORM]
