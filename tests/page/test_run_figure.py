"""Curves of runs as figures."""

import logging
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from diffusion_lit.page.chart import Curve
from diffusion_lit.page.run_figure import FORMATS, Drawing, check_formats, draw_runs, name_of, save_page, unused
from diffusion_lit.run.past import read_run, read_runs
from tests.launch import run_forked
from tests.past_runs import EVALUATION, TABLE, write_run


def words(path: Path) -> list[str]:
    """The text of an SVG."""
    return [text.strip() for node in ElementTree.parse(path).iter() for text in node.itertext() if text.strip()]


def test_the_command_draws_run_against_run(tmp_path: Path) -> None:
    """Every panel, the averaged weights against the raw, FID against images, and the comparison of guidance."""
    for name in ("a b=1", "$b$"):
        write_run(tmp_path / name, TABLE[:3])
    done = run_forked("plot", "run=[a b=1,$b$]", "x=images_seen", "format=svg", "out=o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "o").iterdir()}
    assert {f"o/{name}" for name in files} == set(done.stdout.split())
    names = ("curves", "loss", "averaged_against_raw_weights", "fid_pixels_500", "evaluation_evaluation")
    assert {f"{name}.svg" for name in names} <= files
    assert {"a b=1", "$b$", "fid/pixels_500", "images seen"} <= set(words(tmp_path / "o" / "fid_pixels_500.svg"))
    assert {"guidance", "fid", "real images"} <= set(words(tmp_path / "o" / "evaluation_evaluation.svg"))
    assert {"a b=1: loss", "a b=1: loss_raw"} <= set(words(tmp_path / "o" / "averaged_against_raw_weights.svg"))


def test_comparisons_are_against_calls_where_those_differ(tmp_path: Path) -> None:
    results = [
        one | {"cell": {"sampler": "ddim", "steps": calls}, "generated": {"calls_per_image": calls}}
        for one, calls in zip(EVALUATION["results"], (5, 20), strict=True)
    ]
    run = read_run(write_run(tmp_path / "run", TABLE[:2], evaluation={"results": results, "floor": {}}))
    draw_runs([run], tmp_path / "out", formats=["svg"])
    shown = words(tmp_path / "out" / "evaluation_evaluation.svg")
    assert {"network calls an image", "sampler=ddim", "5", "20"} <= set(shown) and "real images" not in shown


def test_the_same_curves_are_the_same_files_without_chatter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    panel = Drawing("loss", "steps", [Curve("a", [(0.0, 1.0), (1.0, 2.0)])], log=True)
    first, second = (save_page([panel], tmp_path / name / "loss", FORMATS) for name in "AB")
    assert [path.name for path in first] == ["loss.png", "loss.svg", "loss.pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert caplog.records == []
    with Image.open(first[0]) as picture:
        assert picture.width > 600


def test_a_sick_run_is_drawn(tmp_path: Path) -> None:
    rows = [{"step": i, "train/loss": value} for i, value in enumerate([math.nan, math.inf, -1.0, 1e308, 0.0])]
    runs = [
        read_run(write_run(tmp_path / "a", rows)),
        read_run(write_run(tmp_path / "b", [{"step": 1, "own": math.nan}])),
    ]
    assert draw_runs(runs, tmp_path / "out", formats=["svg"])


def test_two_figures_of_one_name_are_two_files() -> None:
    assert name_of("FID / 50 k: <b>") == "fid_50_k_b" and name_of("é") == "figure"
    assert unused("a", {}) == "a" and unused("a", {"a", "a_2"}) == "a_3"


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    empty, other = (write_run(tmp_path / name, [{"step": 1}]) for name in "ab")
    with pytest.raises(ValueError, match="have no figures"):
        (empty / "evaluation" / "evaluation.json").unlink()
        draw_runs([read_run(empty)], tmp_path / "out")
    with pytest.raises(ValueError, match="minutes is not in"):
        draw_runs([read_run(other)], tmp_path / "out", "minutes")
    with pytest.raises(ValueError, match="one of step"):
        draw_runs(read_runs(other), tmp_path / "out", "epochs")
    for formats in ([], None, "gif", ["png", "gif"]):
        with pytest.raises(ValueError, match="png, svg, pdf"):
            check_formats(formats)


@pytest.mark.parametrize(
    "options, words",
    [
        (["run=RUN", "ckpt=x"], "ckpt would be ignored"),
        (["run=RUN", "schedule=vp"], "schedule would be ignored"),
        (["x=minutes"], "x would be ignored without run"),
        (["run=RUN", "x=hours"], "one of step, images_seen, minutes"),
        (["run=nowhere"], "is not a folder"),
    ],
)
def test_mistakes_are_told(options: list[str], words: str, tmp_path: Path) -> None:
    write_run(tmp_path / "RUN")
    done = run_forked("plot", *options, "out=o", cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr, done.stderr
