"""Which of the cases of a test run by default, where the others only repeat its path with another value."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["slow_but"]


def slow_but(kept: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """`cases` for `parametrize`, of which those that are not in `kept` are slow."""
    chosen = list(cases)
    assert all(case in chosen for case in kept), f"{kept} are not all among {chosen}"
    values = (case if isinstance(case, tuple) else (case,) for case in chosen)
    return [
        pytest.param(*value, marks=() if case in kept else pytest.mark.slow)
        for case, value in zip(chosen, values, strict=True)
    ]
