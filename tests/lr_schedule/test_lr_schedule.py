"""Learning rates as functions: against the formulas, and past every end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lit.lr_schedule import ConstantLR, InverseSqrtLR, LRSchedule, WarmupCosineLR, WarmupLR

SCHEDULES = [ConstantLR(), WarmupLR(100, 0.01), WarmupCosineLR(100, 0.01, 0.1), InverseSqrtLR(100, 0.01, 1000)]


def test_values() -> None:
    assert [WarmupLR(100, 0.01).factor(step, 0) for step in (0, 50, 100, 10**9)] == pytest.approx([0.01, 0.505, 1, 1])
    assert WarmupLR(0).factor(0, 0) == 1
    cosine = WarmupCosineLR(0, end=0.1)
    assert [cosine.factor(9, share) for share in (0, 0.25, 0.5, 1, 7)] == pytest.approx(
        [1, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1, 0.1]
    )
    assert InverseSqrtLR(0, reference=1000).factor(4000, 0) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@given(step=st.integers(0, 10**12), share=st.floats(0, 1e6))
def test_defined_for_every_step_and_share(schedule: LRSchedule, step: int, share: float) -> None:
    assert 0 <= schedule.factor(step, share) <= 1


@pytest.mark.parametrize(
    "build",
    [
        lambda: WarmupLR(-1),
        lambda: WarmupLR(start=1.5),
        lambda: WarmupCosineLR(end=-0.1),
        lambda: InverseSqrtLR(reference=0),
    ],
)
def test_values_out_of_range_are_refused(build: object) -> None:
    with pytest.raises(ValueError, match="lr_schedule"):
        build()  # type: ignore[operator]
