"""The page of runs: what is read of them, what it says, and that nothing of their files is more than text."""

import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_lit.page.chart import MAX_POINTS, Chart, Curve, outline
from diffusion_lit.page.commands import commands_of, measured_again
from diffusion_lit.page.content import content_of
from diffusion_lit.page.curves import panel_curves, panels_of_runs, used_axes
from diffusion_lit.page.picture import LARGEST, MOST_FRAMES
from diffusion_lit.page.write import page_of
from diffusion_lit.run.past import PastRun, read_run, read_runs
from tests.launch import read_by_bash, run_forked, train_in
from tests.past_runs import EVALUATION, TABLE, write_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(*runs: PastRun) -> Elements:
    return Elements(page_of(content_of(runs)))


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run.left_out == [] and run.step == 100 and run.is_finished
    assert run.rows[-1]["minutes"] == pytest.approx(100 * 6 / 60)
    assert list(run.pictures["samples"]) == [20, 60, 100]
    assert [evaluation.pairs[0].name for evaluation in run.evaluations] == ["closest_pairs.png"]
    shown = page(run)
    for text in (
        "1,234 parameters",
        "CosineSchedule",
        "best validation loss 0.11 at step 100",
        "cpu ABC",
        "10 minutes",
    ):
        assert text in shown.text, text
    assert len(shown.named("img")) == 4 and "guidance=2" in shown.text and "real images" in shown.text


def test_the_settings_that_differ_are_those_alone(tmp_path: Path) -> None:
    settings = "optimizer: {{lr: {lr}, eps: 1}}\nrun_dir: {run}\nsamples: {{folder: {run}/samples}}\n"
    paths = [tmp_path / name / "run" for name in "AB"]
    for path, lr in zip(paths, (1, 2), strict=True):
        write_run(path, settings=settings.format(lr=lr, run=path))
    runs = read_runs(paths)
    assert [run.name for run in runs] == ["A/run", "B/run"]
    assert content_of(runs)["differing"] == [("optimizer.lr", ["1", "2"])]


@pytest.mark.parametrize(
    "folders, error, words",
    [
        ([], ValueError, "run=RUN"),
        (["run", "./run"], ValueError, "twice"),
        (["nowhere"], FileNotFoundError, "is not a folder"),
        (["empty"], FileNotFoundError, "neither config.yaml nor metrics.csv"),
    ],
)
def test_what_is_not_a_run_is_named(
    folders: list[str], error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        read_runs(folders)
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read_runs("run", "nothing.json")


def test_evaluations_are_found_where_evaluate_puts_them(tmp_path: Path) -> None:
    """Of this run, and not of its neighbour; one that is given goes to the run that it is of."""
    a, b = (write_run(tmp_path / "train" / name) for name in ("my a=1", "my a=12"))
    for place in ("evaluate/x", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        command = shlex.join(["python", "-m", "diffusion_lit.evaluate", f"ckpt={b}/checkpoints/last.ckpt"])
        (tmp_path / place / "evaluation.json").write_text(json.dumps(EVALUATION | {"command": command}))
    runs = read_runs([a, b], tmp_path / "elsewhere")
    assert [[e.path.parent.name for e in run.evaluations] for run in runs] == [
        ["evaluation"],
        ["evaluation", "x", "elsewhere"],
    ]


def test_figures_are_grouped_and_drawn_by_what_there_is(tmp_path: Path) -> None:
    other = [{"step": 5, "own/thing": 1.0}, {"step": 9, "own/thing": 2.0, "val/loss": 0.5}]
    runs = [read_run(write_run(tmp_path / "a")), read_run(write_run(tmp_path / "b", rows=other))]
    panels = {panel.title: panel for panel in panels_of_runs(runs)}
    assert {"loss", "averaged against raw weights", "fid", "own"} <= panels.keys()
    assert list(used_axes(runs)) == ["step"] and list(used_axes(runs[:1])) == ["step", "images_seen", "minutes"]
    loss = panel_curves(panels["loss"], runs)
    assert [curve.name for curve in loss] == ["a: train/loss", "a: val/loss", "a: val/loss_raw", "b: val/loss"]
    assert loss[-1].points == [(9, 0.5)] and len({(curve.colour, curve.dash) for curve in loss}) == 4
    [fid] = panel_curves(panels["fid"], runs[:1], "minutes")
    assert fid.points == [(pytest.approx(step / 10), 100 / step) for step in range(20, 101, 20)]


def test_a_figure_between_rows_that_say_the_time_is_placed_between_them(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "images_seen": 0},
        {"step": 15, "val/loss": 3.0},
        {"step": 20, "images_seen": 200},
        {"step": 30, "val/loss": 2.0},  # after the last that says it
    ]
    run = read_run(write_run(tmp_path / "run", rows=rows))
    [panel] = [panel for panel in panels_of_runs([run]) if panel.title == "loss"]
    assert panel_curves(panel, [run], "images_seen")[0].points == [(150.0, 3.0)]


def test_a_long_curve_keeps_its_spike_and_its_ends() -> None:
    points = [(float(i), math.sin(i / 500)) for i in range(10_000)]
    points[4327] = (4327.0, 9.0)
    shown = outline(points, MAX_POINTS)
    assert len(shown) <= MAX_POINTS and set(shown) <= set(points) and sorted(shown) == shown
    assert (4327.0, 9.0) in shown and shown[0] == points[0] and shown[-1] == points[-1]


def test_what_cannot_be_drawn_leaves_a_gap_and_is_counted() -> None:
    values = [1.0, 2.0, math.nan, 3.0, math.inf, -1.0, 4.0]
    curve = Curve("loss", [(float(i), value) for i, value in enumerate(values)])
    linear, log = Chart("t", "x", [curve]).lines[0], Chart("t", "x", [curve], log=True).lines[0]
    assert linear.path.count("M") == 3 and linear.note == "2 not finite"
    assert log.path.count("M") == 3 and log.note == "2 not finite, 1 not above 0"
    sick = Chart("t", "x", [Curve("loss", [(0.0, 1.0), (1.0, math.nan)])]).lines[0]
    assert sick.last == "nan"


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-9, 1e9], [-1e99, 1e99], [3e-320, 7.0], [1e308, -1e308], []])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_have_an_axis(values: list[float], log: bool) -> None:
    chart = Chart("t", "x", [Curve("c", list(enumerate(values)))], log=log)
    for line in chart.lines:
        for x, y, *_ in line.points:
            assert chart.left <= x <= chart.right and chart.top <= y <= chart.bottom
    if not chart.is_empty:
        assert 1 <= len(chart.y_ticks) <= 7
        assert all(chart.top - 1 <= tick.place <= chart.bottom + 1 for tick in chart.y_ticks)


def test_axes_are_where_the_numbers_are() -> None:
    chart = Chart("t", "x", [Curve("c", [(0.0, 0.1), (10.0, 100.0)])], log=True)
    ticks = {tick.text: tick.place for tick in chart.y_ticks}
    assert ticks["1"] - ticks["10"] == pytest.approx(ticks["10"] - ticks["100"], abs=0.2)
    [low, high] = chart.lines[0].points
    assert high[1] == pytest.approx(ticks["100"], abs=0.1) and low[2:] == ["0", "0.1"]


def test_nothing_of_a_file_is_more_than_text(tmp_path: Path) -> None:
    rows = [{**row, f"own/{EVIL}": 1.0, EVIL: 2.0} for row in TABLE]
    record = {"machine": {EVIL: EVIL}, "git": {"commit": EVIL}, "command": EVIL}
    evaluation = {"command": EVIL, "notes": [EVIL], "protocol": EVALUATION["protocol"] | {EVIL: "\u202e" + EVIL}}
    evaluation["results"] = [one | {"cell": {"guidance": 1.0, EVIL: EVIL}} for one in EVALUATION["results"]]
    settings = f"{json.dumps(EVIL)}: {json.dumps(EVIL)}\nmodel: {{_target_: {json.dumps(EVIL)}}}\n"
    folder = write_run(tmp_path / EVIL.replace("/", "_"), rows, settings, record, evaluation)
    runs = [read_run(folder), read_run(write_run(tmp_path / "b"))]
    assert runs[0].left_out == []
    shown = page(*runs)
    assert shown.text.count("<script>alert(1)") > 5 and "\u202e" not in shown.text
    assert len(shown.named("script")) == 1 and "alert" not in re.sub(r"'[^']*'", "", str(shown.named("script")))
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in shown.named("img"))
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on") or name == "style"]
    [policy] = [str(m["content"]) for m in shown.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    html = page_of(content_of([read_run(write_run(tmp_path / "run"))]))
    assert not re.search(r"""https?:|url\(|@import|src=["'](?!data:)|href=["'](?!#)""", html)


DAMAGED = {
    "metrics.csv": [
        "step,train/loss\n1,<b>\n",
        "step,a\n9" + 20 * "9" + ",1\n",
        "step,a\n1," + 200_000 * "1" + "\n",
        "\0",
    ],
    "config.yaml": ["a: ${oc.env:HOME}", "a: &b [1]\nc: *b", "- 1", "a: !!python/object:os.system {}", "\xff"],
    "run.json": ["[1]", "{", '{"command": NaN', "9" * 5000],
    "evaluation/evaluation.json": ["{}", '{"results": []}', "[[["],
    "samples/step_0000020.png": ["no picture", ""],
    "evaluation/closest_pairs.png": ["no picture"],
}


@pytest.mark.parametrize("file", DAMAGED)
def test_what_cannot_be_read_is_said_and_left_out(file: str, tmp_path: Path) -> None:
    for i, content in enumerate(DAMAGED[file]):
        folder = write_run(tmp_path / str(i), TABLE[:2])
        (folder / file).write_bytes(content.encode("latin-1"))
        content_shown = content_of([read_run(folder)])
        assert any(Path(file).name in text for text in content_shown["left_out"]), (
            content[:50],
            content_shown["left_out"],
        )
        assert Path(file).name in Elements(page_of(content_shown)).text.rpartition("Left out")[2]


@pytest.mark.parametrize(
    "change",
    [
        {"results": [{"cell": {}, "figures": {"fid": {"value": 1.0}}, "generated": []}] * 2},
        {"results": [one | {"generated": {"calls_per_image": "x"}} for one in EVALUATION["results"]]},
        {"floor": {"fid": 3}},
        {"floor": [1]},
        {"notes": 5},
        {"protocol": EVALUATION["protocol"] | {"real": []}},
    ],
)
def test_a_poisoned_evaluation_does_not_stop_the_page(change: dict[str, Any], tmp_path: Path) -> None:
    assert page_of(content_of([read_run(write_run(tmp_path / "run", TABLE[:2], evaluation=change))]))


@pytest.mark.parametrize(
    "name", ["parameters", "command", "started_in", "git", "machine", "versions", "parent", "finished"]
)
def test_a_poisoned_record_does_not_stop_the_page(name: str, tmp_path: Path) -> None:
    for i, value in enumerate([10**4000, -1, True, [], [[1], {}], {"a": {"b": [1]}}, "\0\x1b[2J", math.inf]):
        assert page_of(content_of([read_run(write_run(tmp_path / str(i), TABLE[:2], record={name: value}))]))


def test_pictures_are_bounded_and_it_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for step in range(101, 160):
        Image.fromarray(np.zeros((4, 2 * LARGEST), np.uint8)).save(folder / "samples" / f"step_{step}.png")
    [row] = content_of([read_run(folder)])["pictures"]["rows"]
    assert len(row["frames"]) == MOST_FRAMES and [row["frames"][0][0], row["frames"][-1][0]] == [20, 159]
    assert max(picture.width for _, picture in row["frames"]) == LARGEST
    assert row["note"] == f"{MOST_FRAMES} of its 62 pictures, reduced to {LARGEST} pixels"


def test_commands_are_arguments_of_train_and_nothing_else(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a run=1")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    train = ["python", "-m", "diffusion_lit.train"]
    start = tmp_path / "some where"
    git = {"commit": "0123456789abcdef", "patch": "code.patch"}
    (folder / "code.patch").touch()

    def shown(**record: Any) -> dict[str, str]:
        (folder / "run.json").write_text(json.dumps({"started_in": str(start), "git": git} | record))
        return dict(commands_of(read_run(folder)))

    told = shown(command=[*train, "schedule=cosine", "~callback.fid", "data.root=a b; $(touch x)"])
    change, _, again = told["Train it again"].partition(" && ")
    assert shlex.split(change) == ["cd", str(start)]
    assert read_by_bash(again)[1:] == [*train[2:], "schedule=cosine", "~callback.fid", "data.root=a b; $(touch x)"]
    assert shlex.split(told["with the code that it had"])[-3:] == ["git", "apply", str(folder / "code.patch")][-3:]
    assert read_by_bash(told["Continue it"])[2:] == [f"resume={folder}"]
    finished = shown(finished=100)
    assert read_by_bash(finished["Train on, twice as long"])[2:] == [f"resume={folder}", "trainer.max_steps=200"]
    for command in (["rm", "-rf", "/"], "rm", [*train[:2], "os", "x"], [*train, "--config-name=evil"]):
        assert not any(text.startswith("Train it again") for text in shown(command=command))
    for own in ("--config-dir=/a b/conf", "hydra.searchpath=[/a b/conf]"):
        [(label, text)] = [found for found in shown(command=[*train, own]).items() if found[0].startswith("Train it a")]
        assert read_by_bash(text.partition(" && ")[2])[1:] == [*train[2:], own]
        assert "a b/conf" in label and label.endswith("read these first if they are not yours")
    assert not any("git" in text for text in shown(command=train, git={"commit": "x; rm -rf /"}).values())


def test_the_command_of_an_evaluation_is_one_of_evaluate(tmp_path: Path) -> None:
    given = ["-m", "diffusion_lit.evaluate", "ckpt=a b=c", "steps=[1,2]"]
    for i, (command, shown) in enumerate(
        {
            shlex.join(["/any/python", *given]): given,
            "rm -rf x": None,
            shlex.join(["python", *given]) + " ; rm x": [*given, ";", "rm", "x"],
            "python -m diffusion_lit.evaluate -cn x": None,
            shlex.join(["python", *given, "--config-dir=c d"]): [*given, "--config-dir=c d"],
            "python -m diffusion_lit.train": None,
            "it's": None,
        }.items()
    ):
        [evaluation] = read_run(write_run(tmp_path / str(i), evaluation={"command": command})).evaluations
        again = measured_again(evaluation)
        assert (None if again is None else read_by_bash(again)) == shown, command
        remark = content_of([read_run(evaluation.path.parents[1])])["evaluations"][0]["remark"]
        assert ("configurations of c d" in remark) == ("c d" in command)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "my run=1"
    train_in(folder, "trainer.max_steps=3", "callback.fid.num_samples=12")
    return folder


def test_what_train_writes_is_on_the_page(trained: Path, tmp_path: Path) -> None:
    """The command, from a folder whose name has a space and an equals sign."""
    done = run_forked("report", f"run={trained}", f"out={tmp_path / 'a b=c.html'}", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "a b=c.html"), done.stderr
    shown = Elements((tmp_path / "a b=c.html").read_text())
    for text in (
        "UNet of",
        "trained on 288 images for 3 steps of 60",
        "validation loss by noise level",
        "fid/pixels_12",
    ):
        assert text in shown.text, text
    assert shown.named("img") and "Left out" not in shown.text
    for command in dict(commands_of(read_run(trained))).values():
        assert command in shown.text


@pytest.mark.slow
def test_the_command_that_trains_on_does(trained: Path, tmp_path: Path) -> None:
    _, module, *arguments = read_by_bash(dict(commands_of(read_run(trained)))["Train on, twice as long"])
    again = run_forked(module.rpartition(".")[2], *arguments, f"hydra.run.dir={tmp_path / 'on'}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert read_run(tmp_path / "on").step == 6


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "run= is not given"),
        (["run=nowhere"], "is not a folder"),
        (["run=RUN", "out=page.pdf"], "ends in .html"),
        (["run=RUN", "evaluation=RUN/config.yaml"], "config.yaml"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(options: list[str], words: str, tmp_path: Path) -> None:
    write_run(tmp_path / "RUN")
    done = run_forked("report", *options, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.rglob("*.html"))
