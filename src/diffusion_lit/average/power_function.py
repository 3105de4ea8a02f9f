"""Averages of weights whose profile is a power of the step.

The average at step t of the weights w(s), 0 < s <= t, is that with density p(s) = (gamma + 1) s^gamma / t^(gamma + 1).
Its length is given as the standard deviation of the profile, a share of the whole of training (Karras et al. 2024,
section 3 and appendix C, arXiv:2312.02696).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_std", "decay", "exponent", "profile_error", "solve"]

UNIFORM = 12**-0.5
"""The length of the mean over all steps, gamma = 0."""

Vector = NDArray[np.float64]


def check_std(std: float, setting: str) -> float:
    """Return `std` if it is the length of a profile, else raise a ValueError that names the setting."""
    if not 0 < std <= UNIFORM:
        raise ValueError(
            f"{setting} is the length of an average as a share of training (its standard deviation), over 0 and at "
            f"most {UNIFORM:.4f}, got {std}; 0.05 and 0.1 are usual"
        )
    return std


def exponent(std: float) -> float:
    """gamma of the profile of length `std`.

    The root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = std^2 (eq. 123 and algorithm 2).
    """
    s = float(std) ** -2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def decay(std: float, step: int) -> float:
    """beta of average <- beta average + (1 - beta) w at `step`, counted from 1 (eq. 127)."""
    return float((1 - 1 / step) ** (exponent(std) + 1))


def inner_products(steps: Vector, gammas: Vector, other_steps: Vector, other_gammas: Vector) -> Vector:
    """Integrals of the product of two profiles, of each of the first with each of the second (eq. 151)."""
    s, t = steps[:, None], other_steps[None, :]
    a, b = gammas[:, None], other_gammas[None, :]
    ratio = (s / t) ** np.where(s < t, b, -a)
    result: Vector = (a + 1) * (b + 1) * ratio / ((a + b + 1) * np.maximum(s, t))
    return result


def solve(steps: Sequence[int], stds: Sequence[float], step: int, std: float) -> Vector:
    """By what averages are multiplied, and summed, to be closest to another one (algorithm 3).

    Args:
        steps, stds: step and length of each average that there is; no two are alike.
        step, std: those of the average that is sought.

    Returns:
        The coefficients, of sum 1: the least squares of the difference between the profiles.
    """
    system, products, _ = equations(steps, stds, step, std)
    found: Vector = np.asarray(np.linalg.solve(system, products), np.float64)
    return np.asarray(found / found.sum(), np.float64)


def profile_error(coefficients: Vector, steps: Sequence[int], stds: Sequence[float], step: int, std: float) -> float:
    """The norm of the difference between the profile that `coefficients` give and the one sought, over the latter's."""
    system, products, own = equations(steps, stds, step, std)
    square = float(coefficients @ system @ coefficients - 2 * coefficients @ products) + own
    return max(square / own, 0.0) ** 0.5


def equations(steps: Sequence[int], stds: Sequence[float], step: int, std: float) -> tuple[Vector, Vector, float]:
    """Inner products of the averages there are with each other and with the one sought, and its own with itself."""
    times, gammas = np.array(steps, np.float64), np.array([exponent(each) for each in stds])
    time, gamma = np.array([step], np.float64), np.array([exponent(std)])
    system, products = inner_products(times, gammas, times, gammas), inner_products(times, gammas, time, gamma)
    return system, products[:, 0], float(inner_products(time, gamma, time, gamma)[0, 0])
