"""How long the rest of a run takes, from recorded durations."""

import math

import pytest

from diffusion_lit.budget import Budget
from diffusion_lit.terminal.pace import Pace, remedy, too_long
from diffusion_lit.terminal.status_line import clock_time, fitting


def trained(steps: int, seconds: float, first: float = 30.0) -> Pace:
    """After steps of equal durations, the first one apart."""
    pace = Pace()
    for step in range(steps):
        pace.add_step(first if step == 0 else seconds)
    return pace


def test_the_first_step_and_a_validation_do_not_slow_the_rest() -> None:
    """Half of 1,400 steps of 80 ms, the first of 30 s, then a validation of 20 s: 56 s and one more validation."""
    pace = trained(700, 0.08)
    assert pace.left(700, 1400) == pytest.approx(56)
    pace.add_between("validation", 20, 700)
    assert pace.left(700, 1400) == pytest.approx(76)
    assert pace.left(1050, 1400) == pytest.approx(28 + 20)
    pace.add_between("validation", 10, 1400)
    assert pace.left(1400, 1400) == 0


def test_what_comes_between_steps_counts_as_often_as_it_comes() -> None:
    """A run that is resumed at step 950: pictures every 100 steps, of which the second time tells."""
    pace = trained(150, 1.0)
    pace.add_between("samples", 6, 1000)
    assert pace.left(1000, 2000) == pytest.approx(1000 + 6)  # as if every 1,000 steps
    pace.add_between("samples", 5, 1100)
    assert pace.left(1100, 2000) == pytest.approx(900 + 9 * 5)
    pace.add_between("samples", 7, 1100)  # a second time after one step changes no more than its duration
    assert pace.left(1100, 2000) == pytest.approx(900 + 9 * 7)


def test_rare_slow_steps_and_what_is_long_past_do_not_count() -> None:
    pace = trained(50, 9.0)
    for step in range(100):
        pace.add_step(60.0 if step % 10 == 9 else 0.5)
    assert pace.left(150, 250) == pytest.approx(50)


def test_what_is_not_known_is_not_guessed() -> None:
    assert Pace().left(0, 10) is None and trained(1, 1.0).left(1, 10) is None
    assert trained(5, 1.0).left(5, math.inf) is None


@pytest.mark.parametrize(
    "limits, last",
    [
        ({"max_steps": 500}, 500),
        ({"max_steps": 500, "max_epochs": 10}, 230),
        ({"max_images": 6400}, 110),  # of which 640 are left
        ({"max_minutes": 5.0}, math.inf),
        ({"max_steps": 50}, 100),  # where it is already
    ],
)
def test_a_budget_ends_at_a_step(limits: dict[str, float], last: float) -> None:
    budget = Budget(**limits)  # type: ignore[arg-type]
    budget.images = 5760
    assert budget.final_step(100, 23, 64) == last


def test_a_time_that_nobody_means_says_what_to_lower() -> None:
    """36 hours on a CPU: README's small model on a user's own images at 64 x 64."""
    assert too_long(36 * 3600, on_gpu=False) and not too_long(36 * 3600, on_gpu=True)
    assert not too_long(5 * 3600, on_gpu=False)
    text = remedy(36 * 3600, 93.0, 7_300_000, (64, 64), on_gpu=False)
    for part in (
        "93 s a step",
        "1 d 12:00",
        "trainer.max_steps (38 more",
        "7,300,000 parameters",
        "64 x 64",
        "use a GPU",
    ):
        assert part in text
    assert "use a GPU" not in remedy(1e7, 1.0, 1, (64, 64), on_gpu=True)


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (6.2, "0:07"), (754, "12:34"), (3723, "1:02:03"), (273900, "3 d 04:05")]
)
def test_times(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


@pytest.mark.parametrize(
    "width, bar, shown",
    [
        (100, 27, ["loss 0.4321", "val/loss 0.4", "988 img/s"]),
        (76, 14, ["loss 0.4321", "val/loss 0.4"]),
        (56, 8, ["loss 0.4321"]),
        (46, 11, []),
        (36, 0, []),
        (20, 0, []),
    ],
)
def test_a_line_shows_what_fits_the_most_important_first(width: int, bar: int, shown: list[str]) -> None:
    figures = ["loss 0.4321", "val/loss 0.4", "988 img/s"]
    columns, after = fitting(["training", "28/3000 steps", "1:56+ left"], figures, width)
    assert [figure for figure in figures if figure in after] == shown
    assert columns == bar and len("training ") + columns + (columns > 0) + len(after) <= width
    assert after.startswith("28/3000"[: max(0, width - 10)])
