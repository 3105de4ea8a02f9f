"""When the page of a run's figures is drawn. `tests/logger/test_dashboards.py` has what is on it."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_lit.callback import Dashboard, dashboard
from diffusion_lit.logger.csv import CSVLogger

MODULE: Any = None
CLOCK = [0.0]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each page is drawn of, at the last time in `CLOCK`."""
    pages: list[Any] = []
    monkeypatch.setattr(dashboard, "draw_dashboard", lambda *given: pages.append(given))
    monkeypatch.setattr(dashboard, "time", SimpleNamespace(monotonic=lambda: CLOCK[-1]))
    return pages


def trained(folder: Path, **options: Any) -> tuple[Dashboard, Any]:
    CLOCK[:] = [1000.0]
    logger = CSVLogger(str(folder))
    logger.rows = {6: {"step": 6.0}, 3: {"step": 3.0}}
    trainer: Any = SimpleNamespace(loggers=[object(), logger], is_global_zero=True, sanity_checking=False)
    callback = Dashboard(str(folder / "a run"), **options)
    callback.on_train_start(trainer, MODULE)
    return callback, trainer


def test_a_page_is_drawn_after_a_validation_once_it_is_old_enough_and_at_the_end(
    drawn: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "diffusion_lit"):
        callback, trainer = trained(tmp_path, refresh_minutes=2)
    assert not caplog.messages
    pages = []
    for seconds in (119, 120, 121, 239, 240):
        CLOCK.append(1000.0 + seconds)
        callback.on_validation_end(trainer, MODULE)
        pages.append(len(drawn))
    assert pages == [0, 1, 1, 1, 2]
    assert drawn[0] == ([{"step": 3.0}, {"step": 6.0}], tmp_path / "a run" / "dashboard.png", "a run")
    trainer.sanity_checking = True
    CLOCK.append(9999.0)
    callback.on_validation_end(trainer, MODULE)
    assert len(drawn) == 2
    callback.on_train_end(trainer, MODULE)
    callback.on_exception(trainer, MODULE, ValueError())
    assert len(drawn) == 3
    callback.on_exception(trainer, MODULE, FloatingPointError())
    assert len(drawn) == 4, "of a run that has diverged"


def test_the_first_rank_draws_what_there_is_to_draw(drawn: list[Any], tmp_path: Path) -> None:
    callback, trainer = trained(tmp_path)
    trainer.is_global_zero = False
    callback.on_train_end(trainer, MODULE)
    trainer.is_global_zero, trainer.loggers[1].rows = True, {}
    callback.on_train_end(trainer, MODULE)
    assert drawn == []


@pytest.mark.parametrize(("csv", "first", "said"), [(True, True, 0), (False, True, 1), (False, False, 0)])
def test_why_there_is_no_page_is_said_once(
    csv: bool, first: bool, said: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers = [object(), *([CSVLogger(str(tmp_path))] if csv else [])]
    trainer: Any = SimpleNamespace(loggers=loggers, is_global_zero=first)
    with caplog.at_level(logging.INFO, "diffusion_lit"):
        Dashboard(str(tmp_path)).on_train_start(trainer, MODULE)
    assert ["no dashboard.png is drawn" in message for message in caplog.messages] == [True] * said


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"callback\.dashboard\.refresh_minutes must not be negative, got -1"):
        Dashboard(str(tmp_path), refresh_minutes=-1)
    Dashboard(str(tmp_path), refresh_minutes=0)
