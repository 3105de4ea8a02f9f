"""What is said on a terminal, in a file, and on one without colours."""

import logging
import os
import sys
from pathlib import Path

import pytest

from diffusion_lit.terminal.progress import Progress, activated, progress
from diffusion_lit.terminal.screen import SCREEN, LogHandler, choose_progress, progress_mode, say, table
from tests.terminals import COLOUR, screen, terminal


@pytest.fixture(autouse=True)
def automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCREEN, "mode", "auto")
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize("width", [60, 80])
def test_a_table_is_aligned_and_breaks_no_path(width: int) -> None:
    path = Path("/a/folder of/a long/name/" + "x" * 50 + " = " + "y" * 50)
    text = table([("short", "word " * 30), ("left out", None), ("the folder", path), ("empty", "")], width)
    lines = text.splitlines()
    assert str(path) in text and "left out" not in text and lines[-1].strip() == "empty"
    assert all(len(line) <= width for line in lines if str(path) not in line)
    words = [line.index("word") for line in lines if "word" in line]
    assert len(words) > 1 and set(words) == {lines[-2].index(str(path))} == {len("the folder") + 4}


@pytest.mark.parametrize("colours", [True, False])
def test_messages_stand_above_the_bar(colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of logging, of warnings, and what anybody prints; colours go with NO_COLOR, the bar does not."""
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    with terminal(100) as (screen_, written):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, os.fdopen(os.dup(screen_.end), "w", buffering=1))
        logger = logging.Logger("diffusion_lit.test")
        logger.addHandler(LogHandler())
        assert progress_mode() == "bar"
        with progress("preparing", 10, "images") as work:
            for done in range(11):
                work.reach(done)
                if done == 5:
                    logger.info("a message of several words, %s", "longer than the line " * 6)
                    logger.warning("careful")
                    print("printed")
        sys.stdout.close()
        sys.stderr.close()
    lines = screen(written[0])
    [wide] = [line for line in lines if line.startswith("a message of several")]
    assert wide.rstrip() == "a message of several words, " + " ".join(["longer than the line"] * 6)
    assert [line.rstrip() for line in lines if "careful" in line] == ["warning: careful"]
    assert "printed" in [line.rstrip() for line in lines]
    [bar] = [line for line in lines if "preparing" in line]
    assert bar.startswith("preparing ━") and "10/10 images" in bar
    assert "\x1b[?25l" not in written[0]  # the cursor, which would stay hidden after a kill
    assert bool(COLOUR.search(written[0])) == colours


def test_a_file_gets_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    assert progress_mode() == "plain"
    whole = Progress("preparing", 100, "images", plain_seconds=30, clock=lambda: now[0])
    with activated(whole), progress("checking", 10, "shards") as work:
        for done in range(11):
            now[0] += 10
            work.reach(done)
        say("between", logging.WARNING)
    said = capsys.readouterr()
    assert said.out == "between\n" and "\x1b" not in said.err
    lines = [line.split(" ", 1)[1] for line in said.err.splitlines()]  # without the time of day
    assert lines[0] == "checking 2/10 shards, 2:00 left"
    assert lines[1:] == ["checking 5/10 shards, 1:00 left", "checking 8/10 shards, 0:23 left", "preparing 0/100 images"]


@pytest.mark.parametrize("mode", ["none", None, "plain", "bar"])
def test_how_progress_is_shown_can_be_chosen(mode: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    choose_progress(mode)
    whole = Progress("work", 2, "steps", plain_seconds=0, refresh_seconds=0)
    with activated(whole), progress("part", 2, "steps") as work:
        work.reach(2)
    shown = capsys.readouterr().err
    assert ("part" in shown) == (mode in ("plain", "bar")) and ("\x1b" in shown) == (mode == "bar")
    with pytest.raises(ValueError, match="progress must be one of auto, bar, plain, none, got rich"):
        choose_progress("rich")
    assert SCREEN.mode == (mode or "none")  # as before


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal(80) as (screen_, _):
        monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(screen_.end), "w"))
        assert progress_mode() == "plain"
        sys.stderr.close()
