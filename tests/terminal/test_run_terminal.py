"""What a run shows while it trains: on a terminal, in a file, and in its log."""

import os
import sys
from pathlib import Path

import pytest

from tests.launch import PATIENCE, TINY, Forked, read_by_bash, run_forked, train_in
from tests.terminals import screen, terminal

OPTIONS = (
    *TINY,
    "trainer.max_steps=7",
    "trainer.log_every_n_steps=1",
    "callback.progress.refresh_seconds=0",
    "callback.progress.plain_seconds=0",
)
ROWS = (
    *("model", "learns", "sampler", "optimizer", "data", "batch", "device", "length", "evaluation", "checkpoints"),
    *("figures", "folder"),
)


@pytest.fixture(scope="module")
def on_terminal(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The screen of a run in a folder with a space and an equals sign, 60 columns wide."""
    folder = tmp_path_factory.mktemp("run") / "a = b"
    command = [sys.executable, "-m", "diffusion_lit.train", *OPTIONS, f"hydra.run.dir={folder}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with terminal(60) as (opened, written):
        process = Forked(command, folder.parent, {**environment, "TERM": "xterm"}, opened.end, opened.end)
        assert process.wait(PATIENCE) == 0
    return screen(written[0]), folder


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Output, errors and folder of a run without a terminal."""
    folder = tmp_path_factory.mktemp("run") / "run"
    done = run_forked("train", *OPTIONS, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr, folder


def test_the_start_is_one_table_that_fits(on_terminal: tuple[list[str], Path]) -> None:
    lines, folder = on_terminal
    begin, end = (next(i for i, line in enumerate(lines) if line.split()[:1] == [name]) for name in ("model", "folder"))
    table = lines[begin : end + 1]
    assert [line.split()[0] for line in table if line[2:3] != " "] == list(ROWS)
    assert all(len(line) <= 60 for line in table[:-1]) and str(folder) in table[-1]
    text = " ".join(" ".join(table).split())
    for words in (
        "10 classes",
        "to predict v under the linear noise schedule; loss mse, weighting unit, times drawn uniform",
        "ddim, 3 steps",
        "288 training, 12 validation images, 8 x 8 x 1",
        "60 images a step",
        "CPU, 1 thread, precision 32-true",
        "7 steps = 1.8 epochs = 420 images",
        "validation loss every 3 steps, fid/pixels_21 every 3 steps, pictures every 3 steps",
        "metrics.csv",
    ):
        assert words in text, words


def test_the_bar_names_phases_and_glues_nothing(on_terminal: tuple[list[str], Path]) -> None:
    """One line, drawn again and again, is left of it; a warning in the middle of it stands alone above."""
    lines, _ = on_terminal
    bars = [line for line in lines if "━" in line]
    assert len(bars) == 1 and bars[0].startswith("training ━") and "7/7 steps" in bars[0]
    assert len(bars[0].rstrip()) < 60
    [warning] = [line for line in lines if "covariances are singular" in line]
    assert warning.startswith("warning: fid/pixels_21 compares")


def test_the_end_says_what_to_paste(on_terminal: tuple[list[str], Path]) -> None:
    lines, folder = on_terminal
    begin = lines.index("Try next")
    assert read_by_bash(lines[begin + 1]) == ["-m", "diffusion_lit.sample", f"ckpt={folder}", "guidance=2"]
    resumed = ["-m", "diffusion_lit.train", f"resume={folder}", "trainer.max_steps=14"]
    assert read_by_bash(lines[begin + 2]) == resumed
    [checkpoint] = [line for line in lines if line.startswith("  checkpoint  ")]
    assert Path(checkpoint.removeprefix("  checkpoint  ")).is_file()


def test_a_file_has_lines_of_every_phase_and_no_codes(in_files: tuple[str, str, Path]) -> None:
    out, errors, _ = in_files
    assert "\x1b" not in out + errors and "━" not in out + errors and "\r" not in out + errors
    phases = {line.split()[1].rstrip(",") for line in errors.splitlines()}
    assert phases == {"first", "training", "validation", "FID", "samples", "real", "saving"}
    last = errors.splitlines()[-1]
    assert "training 7/7 steps, loss" in last and "img/s" in last and "val/loss" in last and "left" not in last


def test_nothing_of_other_libraries_is_said(in_files: tuple[str, str, Path]) -> None:
    out, errors, _ = in_files
    for word in ("lightning", "matplotlib", "torch", "seed", "UserWarning", "num_workers", "Tip:"):
        assert word.lower() not in (out.split("Try next")[0] + errors).lower(), word


def test_the_log_file_has_the_table_too(in_files: tuple[str, str, Path]) -> None:
    out, _, folder = in_files
    log = (folder / "train.log").read_text()
    assert all(f"\n  {name} " in "\n" + log.replace("] - ", "\n") for name in ROWS) and "covariances" in log
    assert str(folder) in out


def test_no_bar_means_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither ours nor Lightning's own."""
    trainer = train_in(tmp_path, "trainer.max_steps=1", "callback.progress=null", "callback.fid=null")
    assert trainer is not None and trainer.progress_bar_callback is None and capfd.readouterr().err == ""
