"""The evaluate command: its figures against independent ones, however it is started, stopped, and asked again."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytest import approx
from scipy import linalg, stats
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffusion_lit import evaluating
from diffusion_lit.evaluation.comparison import compare_results
from diffusion_lit.evaluation.feature_folder import FeatureFolder
from diffusion_lit.evaluation.reference import own_data
from diffusion_lit.feature import Pixels
from diffusion_lit.page.curves import evaluation_curves
from diffusion_lit.provenance import repeat_command
from diffusion_lit.run.past import Evaluation
from diffusion_lit.terminal.progress import Progress
from tests.evaluation.hasty import (
    DRAWN,
    FEW,
    NUM,
    PLAIN,
    SEEN,
    damaged,
    evaluated,
    figures,
    pieces,
    result,
    train_hastily,
)
from tests.evaluation.hasty import small_pieces as small_pieces
from tests.launch import PATIENCE, Forked, few_digits, holding, read_by_bash, run_forked, run_launched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_hastily(tmp_path_factory)


HERE = ("out=out", "cache=cache")


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process reports."""
    return evaluated(tmp_path_factory.mktemp("whole"), f"ckpt={run}", *PLAIN)


@pytest.fixture(scope="module")
def drawn(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sample` writes of the same images, whose classes are in the proportions of the training images."""
    folder = tmp_path_factory.mktemp("drawn")
    done = run_forked("sample", f"ckpt={run}", *DRAWN, "format=[png,zip,npz]", "labels=data", "out=drawn", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "drawn"


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """The formula as it is printed (Heusel et al. 2017, eq. 6), with the square root of the product."""
    a, b = (np.cov(z, rowvar=False) + 1e-10 * np.eye(z.shape[1]) for z in (x, y))
    between = x.mean(0) - y.mean(0)
    return float(between @ between + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def test_figures_are_those_of_the_images_that_sample_draws(whole: Path, drawn: Path) -> None:
    with np.load(drawn / "samples.npz") as arrays:
        images = arrays["arr_0"]
    train = few_digits()["train"]
    real, _ = train.fetch(list(range(len(train))))
    x, y = images.reshape(NUM, -1) / 255.0, real.flatten(1).numpy() / 255.0
    found = figures(whole)
    assert found["fid"] == approx(frechet(x, y), rel=1e-4)
    kid = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=10, kid_subset_size=20, verbose=False
    )
    assert found["kid"] == approx(kid["kernel_inception_distance_mean"], rel=1e-4)
    both = prc_features_to_metric(torch.from_numpy(x).float(), torch.from_numpy(y).float(), verbose=False)
    assert found["precision"] == approx(both["precision"], rel=1e-4)
    assert found["recall"] == approx(both["recall"], rel=1e-4)
    assert Pixels()(real).equal(real.flatten(1) / 255), "what this test takes for its features"


@pytest.mark.parametrize("name", ["png", "samples.zip", "samples.npz"])
def test_images_that_there_are_give_the_same_figures(
    name: str, run: Path, whole: Path, drawn: Path, tmp_path: Path
) -> None:
    args = (f"samples={drawn / name}", f"ckpt={run}", *SEEN, *FEW, f"cache={whole.parent / 'cache'}")
    out = evaluated(tmp_path, *args)
    assert figures(out) == figures(whole)
    assert result(out)["protocol"]["num_generated"] == NUM


def test_classes_come_with_edm_s_zip_and_with_an_npz(run: Path, drawn: Path, tmp_path: Path) -> None:
    common = (f"ckpt={run}", "metrics=[class_histogram]", *SEEN)
    files = [drawn / "samples.zip", drawn / "samples.npz"]
    found = [figures(evaluated(tmp_path, *common, f"samples={file}")) for file in files]
    with np.load(drawn / "samples.npz") as arrays:
        p = np.bincount(arrays["arr_1"], minlength=10) / NUM
    q = np.bincount(few_digits()["train"].labels, minlength=10) / 288  # type: ignore[attr-defined]
    assert found == [{"class_distance": approx(np.abs(p - q).sum() / 2)}] * 2
    assert "feature=classifier recognises classes" in (tmp_path / "out" / "evaluation.md").read_text()


def test_processes_of_a_launcher_see_the_same(run: Path, whole: Path, tmp_path: Path) -> None:
    ended = run_launched("evaluate", f"ckpt={run}", *PLAIN, *HERE, "batch_size=7", folders=[tmp_path] * 3)
    assert [code for code, _ in ended] == [0] * 3, ended
    assert pieces(tmp_path / "out") == pieces(whole) and len(pieces(whole)) == 8
    assert pieces(tmp_path / "cache") == pieces(whole.parent / "cache")
    assert figures(tmp_path / "out") == approx(figures(whole), rel=1e-6)
    assert "".join(said for _, said in ended).count("# Evaluation") == 1


def test_the_command_starts_processes_itself(run: Path, whole: Path, tmp_path: Path) -> None:
    done = run_forked("evaluate", f"ckpt={run}", *PLAIN, *HERE, "devices=2", "batch_size=32", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("# Evaluation") == 1, done
    assert pieces(tmp_path / "out") == pieces(whole)
    assert figures(tmp_path / "out") == approx(figures(whole), rel=1e-6)


def stopped(run: Path, folder: Path, number: int) -> tuple[int, str]:
    """The exit code and the words of an `evaluate` that gets a signal once some pieces of its images are there."""
    said = folder / "said.txt"

    def two_pieces() -> bool:
        return len(pieces(folder / "out")) >= 2

    with said.open("w") as file, holding(FeatureFolder, "write", two_pieces, let_go := folder / "go"):
        command = [sys.executable, "-m", "diffusion_lit.evaluate", f"ckpt={run}", *PLAIN, *HERE]
        process = Forked(command, folder, {**os.environ}, file.fileno(), file.fileno())
        process.until(two_pieces)
        process.send_signal(number)
        let_go.touch()
        code = process.wait(PATIENCE)
    return code, said.read_text()


def test_a_killed_command_continues(run: Path, whole: Path, tmp_path: Path) -> None:
    code, _ = stopped(run, tmp_path, signal.SIGKILL)
    there = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("0*.npz")}
    assert code == -signal.SIGKILL and 2 <= len(pieces(tmp_path / "out")) < 8
    (next((tmp_path / "out" / "features").glob("*/")) / ".000007.npz.1.partial").touch()
    out = evaluated(tmp_path, f"ckpt={run}", *PLAIN)
    assert figures(out) == figures(whole) and pieces(out) == pieces(whole)
    assert {file: file.stat().st_mtime_ns for file in there} == there and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_command_prints_the_one_that_continues_it(
    number: int, run: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my images, seed=0"
    folder.mkdir()
    code, said = stopped(run, folder, number)
    assert code == 128 + number and "Traceback" not in said, said
    there = pieces(folder / "out")
    assert 2 <= len(there) < 8
    command = said[said.index("Continue with\n") :].splitlines()[1].strip()
    name, *args = read_by_bash(command)[1:]
    assert name == "diffusion_lit.evaluate"
    done = run_forked("evaluate", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert figures(folder / "out") == figures(whole) and there.items() <= pieces(folder / "out").items()
    assert not (tmp_path / "cache").exists(), "paths are those of the first command"


def test_the_command_of_a_report_gives_the_same_figures(run: Path, whole: Path, tmp_path: Path) -> None:
    record = result(whole)
    report = (whole / "evaluation.md").read_text()
    assert record["command"] in report.split("## Again")[1]
    _, _, *args = read_by_bash(record["command"])
    again = tmp_path / "again, out=1"
    done = run_forked("evaluate", *args, f"out={again}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    other = result(again)
    assert other["results"] == record["results"] and other["protocol"] == record["protocol"]


@pytest.mark.parametrize("against", ["test", "./test", "other"])
def test_a_repeated_command_names_a_split_as_it_does(
    against: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no folder of that name, which is other images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test").mkdir()
    command = repeat_command("evaluate", OmegaConf.create({"against": against, "out": "out"}), [f"against={against}"])
    expected = str(tmp_path / "test") if against == "./test" else against
    assert read_by_bash(command)[-2:] == [f"against={expected}", f"out={tmp_path / 'out'}"]


def test_a_report_has_all_that_a_paper_states(run: Path, whole: Path) -> None:
    protocol = result(whole)["protocol"]
    assert protocol["real"] | {"content": ""} == {
        "data": "diffusion_lit.data.DigitsData", "split": "train", "resolution": 8, "count": 288, "content": "",
    }  # fmt: skip
    assert len(protocol["real"]["content"]) == 64 and protocol["num_generated"] == NUM
    assert protocol["extractors"]["pixels"]["sees"].startswith("[0, 1]")
    assert "weights_sha256" in protocol["extractors"]["pixels"]
    generated = protocol["generated"]
    assert len(generated["ckpt"]) == 64 and generated["sampler"]["_target_"].endswith("DDIMSampler")
    expected = {"num_steps": 2, "guidance": 1.0, "seed": 0, "weights": "ema", "precision": "32-true", "step": 2}
    assert {key: generated[key] for key in expected} == expected and generated["calls_per_image"] == 2
    assert protocol["metrics"]["kid"]["subset_size"] == 20
    assert torch.__version__.startswith(protocol["versions"]["torch"])
    rows = [line for line in (whole / "evaluation.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 6 and {row.count("|") for row in rows} == {5}
    assert "pixels features, lower is better" in rows[2]


def test_a_checkpoint_that_is_replaced_meanwhile_is_not_what_is_said_to_be_measured(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is training saves another model after this one was loaded, and before it draws."""
    shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "x.ckpt")

    def replacing(*given: Any) -> Any:
        damaged(run, tmp_path / "x.ckpt")
        return own_data(*given)

    monkeypatch.setattr(evaluating, "own_data", replacing)
    out = evaluated(tmp_path, f"ckpt={tmp_path / 'x.ckpt'}", *PLAIN)
    assert result(out)["results"] == result(whole)["results"], "with its checksum"


def test_a_comparison_is_one_table_and_one_figure(run: Path, tmp_path: Path) -> None:
    args = (f"ckpt={run}", *SEEN, "num_samples=16", "metrics=[fid]")
    out = evaluated(tmp_path, *args, "steps=[1,2]", "sampler=[ddim,heun]", "guidance=[1,2]")
    record = result(out)
    cells = {tuple(one["cell"].values()): one for one in record["results"]}
    assert len(cells) == 8 and len({one["figures"]["fid"]["value"] for one in cells.values()}) > 5
    calls = {cell: one["generated"]["calls_per_image"] for cell, one in cells.items()}
    assert [calls["heun", 2, scale] for scale in (1, 2)] == [3, 6], "guidance by the model itself is not free"
    by_guidance, curves = evaluation_curves(Evaluation(out, record))
    [heun] = [curve for curve in curves["fid"] if curve.name == "sampler=heun, guidance=2"]
    assert not by_guidance and heun.points[1][0] == 6
    one_step = [one for one in record["results"] if one["cell"]["steps"] == 1]
    for one in one_step:
        del one["cell"]["steps"]
    by_guidance, curves = evaluation_curves(Evaluation(out, {"results": one_step}))
    assert by_guidance and [x for x, _ in curves["fid"][0].points] == [1, 2]
    rows = [line for line in (out / "evaluation.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 11 and {row.count("|") for row in rows} == {4} and rows[-1].startswith("| real images")
    assert (out / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert len(pieces(tmp_path / "cache")) == 36, "real images are looked at once"
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npz")}
    alone = evaluated(tmp_path, *args, "steps=2", "guidance=2", "sampler=heun", f"out={tmp_path / 'alone'}")
    assert figures(alone)["fid"] == cells["heun", 2, 2]["figures"]["fid"]["value"]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npz")} == stamps


@pytest.mark.slow
def test_jobs_of_a_sweep_have_reports_of_their_own(run: Path, tmp_path: Path) -> None:
    done = run_forked(
        *("evaluate", "-m", f"ckpt={run}", *SEEN, *DRAWN, "metrics=[fid]", "seed=0,1", *HERE), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        out = tmp_path / "out" / str(seed)
        assert result(out)["protocol"]["generated"]["seed"] == seed and f"out={out}" in result(out)["command"]


def test_seeds_give_a_mean_and_an_interval(run: Path, tmp_path: Path) -> None:
    out = evaluated(tmp_path, f"ckpt={run}", *SEEN, "metrics=[fid]", DRAWN[0], "seed=[0,1,2]", "num_samples=20")
    record = result(out)
    values = np.array([one["figures"]["fid"]["value"] for one in record["results"]])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    [summary] = record["seeds"]
    assert summary["figures"]["fid"] == approx([(low + high) / 2, (high - low) / 2], rel=1e-6)
    assert "3 seeds" in (out / "evaluation.md").read_text()


def test_results_are_compared(run: Path, whole: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    one = whole / "evaluation.json"
    longer = evaluated(tmp_path_factory.mktemp("longer"), f"ckpt={run}", *PLAIN, "sampler.num_steps=8")
    text, alike = compare_results(one, longer / "evaluation.json")
    assert compare_results(whole, longer) == (text, alike), "folders are the files in them"
    assert alike and "generated.sampler.num_steps: 2 and 8" in text and "measured alike" in text
    variants = {
        "num_generated": ["num_samples=50"],
        "real.split": ["against=test", "metrics.kid.subset_size=10"],
        "extractors.pixels.sees": ["feature.max_resolution=4"],
        "metrics.precision_recall.k": ["metrics.precision_recall.k=2"],
    }
    for key, options in variants.items():
        other = evaluated(tmp_path, f"ckpt={run}", *PLAIN, *options)
        text, alike = compare_results(one, other / "evaluation.json")
        assert not alike and f"  {key}: " in text.partition("NOT be compared")[2], text
    elsewhere = json.loads(one.read_text())
    elsewhere["protocol"]["real"] |= {"data": "another way to them", "source": "another/place"}
    (tmp_path / "elsewhere.json").write_text(json.dumps(elsewhere))
    text, alike = compare_results(one, tmp_path / "elsewhere.json")
    assert alike and "  real.source: " in text.partition("measured alike")[2], "the same images by another name"
    more = evaluated(tmp_path, f"ckpt={run}", *SEEN, *DRAWN, "metrics=[fid,vendi]")
    assert compare_results(one, more / "evaluation.json")[1], "what only one has figures of decides nothing"
    alone = evaluated(tmp_path, f"ckpt={run}", *SEEN, *DRAWN, "metrics=[vendi]")
    assert "no figure in common" in compare_results(one, alone / "evaluation.json")[0]
    vgg = json.loads(one.read_text().replace('"pixels"', '"random_vgg"'))
    (tmp_path / "vgg.json").write_text(json.dumps(vgg))
    text, alike = compare_results(one, tmp_path / "vgg.json")
    assert not alike and re.search(r"fid: \S+ \(pixels\) and \S+ \(random_vgg\)", text) and "\nWhat differs:" in text
    broken = tmp_path / "x.json"
    unread = json.dumps(
        {**json.loads(one.read_text()), "results": [{"cell": {}, "figures": {"f": {"value": 1, "reads": 2}}}]}
    )
    for content in (
        "",
        "{}",
        "[]",
        '{"results": []}',
        unread,
        '{"results": [{"figures": {"fid": 1}}], "protocol": {}}',
    ):
        broken.write_text(content)
        with pytest.raises(ValueError, match=r"x\.json"):
            compare_results(one, broken)
    broken.write_text(one.read_text().replace('"pixels"', r'"pix\u001b[31mels"'))
    assert "\x1b" not in compare_results(one, broken)[0]
    files = {longer / "evaluation.json": 0, tmp_path / "out" / "evaluation.json": 1, tmp_path / "nowhere.json": 2}
    for file, code in files.items():
        done = run_forked("evaluate", "compare", str(one), str(file), cwd=tmp_path)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_results_of_the_same_settings_stand_beside_each_other(whole: Path, tmp_path: Path) -> None:
    """Whatever their order; and none is left out without a word."""
    record = result(whole)
    [one], files = record["results"], {"a": ["steps=1", "steps=2", "steps=3"], "b": ["steps=4", "steps=2"]}
    for name, cells in files.items():
        results = [
            one | {"cell": dict([cell.split("=")]), "figures": {"fid": {"value": int(cell[-1])}}} for cell in cells
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(record | {"results": results}))
    lines = compare_results(tmp_path / "a.json", tmp_path / "b.json")[0].splitlines()[3:11]
    alone = [("A", 1), ("A", 3), ("B", 4)]
    assert lines == [
        "steps=2:",
        "  fid: 2 and 2",
        *(w for s, n in alone for w in (f"{s} alone, steps={n}:", f"  fid: {n}")),
    ]


@pytest.mark.parametrize(
    "one, other, group",
    [
        (["metrics=[fid]", *SEEN[:1], "against=test"], ["metrics=[fid,authenticity]"], "training.split"),
        (["metrics=[vendi]", *SEEN[:1]], ["metrics=[fid,vendi]"], "real.split"),
        (
            ["metrics=[bound]", "against=test"],
            ["metrics=[bound,fid]", "num_samples=20", "sampler.num_steps=2"],
            "num_generated",
        ),
    ],
    ids=["training", "real", "generated"],
)
def test_images_that_no_common_figure_reads_decide_nothing(
    one: list[str], other: list[str], group: str, run: Path, tmp_path: Path
) -> None:
    short = ["metrics.bound.num_steps=2", "metrics.bound.num_images=4"] if "bound" in one[0] else []
    drawn = DRAWN if "bound" not in one[0] else ()
    common = (f"ckpt={run}", "device=cpu", "pairs=0", "floor=false", f"cache={tmp_path / 'cache'}", *drawn, *short)
    a = evaluated(tmp_path / "a", *common, *one) / "evaluation.json"
    b = evaluated(tmp_path / "b", *common, "feature=pixels", "against=test", *other) / "evaluation.json"
    text, alike = compare_results(a, b)
    assert alike and f"\n  {group}: " in text.partition("measured alike")[2], text
    for file in (a, b):  # as older versions wrote them
        record = json.loads(file.read_text())
        for figure in record["results"][0]["figures"].values():
            del figure["reads"]
        file.write_text(json.dumps(record))
    assert f"\n  {group}: " in compare_results(a, b)[0].partition("NOT be compared")[2]


def test_metrics_whose_figures_share_a_name_are_all_there(run: Path, tmp_path: Path) -> None:
    """And the noise floor of one does not stand beside the figure of another, which too few images have."""
    images, _ = few_digits()["train"].fetch(list(range(80)))
    for name, some in {"a": images[:40], "b": images[40:]}.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=some.permute(0, 2, 3, 1))
    common = (f"ckpt={run}", f"against={tmp_path / 'b.npz'}", "device=cpu")
    small = "extractor: {_target_: diffusion_lit.feature.Pixels, max_resolution: 4}"
    members = {
        "small": f"+metrics.small={{_target_: diffusion_lit.metrics.FrechetDistance, {small}}}",
        "many": f"+metrics.many={{_target_: diffusion_lit.metrics.PrecisionRecall, k: 25, {small}}}",
        "bound": "+metrics.short={_target_: diffusion_lit.evaluation.bits_per_dim.Bound, num_steps: 2, num_images: 4}",
    }
    chosen = "metrics=[fid,precision_recall,bound]"
    bound = ("metrics.bound.num_steps=3", "metrics.bound.num_images=4", "sampler.num_steps=2", "num_samples=40")
    out = evaluated(tmp_path, *common, "feature=pixels", chosen, *bound, *members.values())
    [one] = result(out)["results"]
    assert {name: figure["metric"] for name, figure in one["figures"].items() if "." in name} == {
        "fid.small": "small", "precision.many": "many", "recall.many": "many",
        **{f"{name}.short": "short" for name in ("bound", "bound_prior", "bound_steps", "bound_decoder")},
    }  # fmt: skip
    assert result(out)["floor"].keys() == {"fid", "fid.small", "precision", "recall"}
    alone = evaluated(
        tmp_path / "alone", *common, "feature=pixels", "feature.max_resolution=4", "metrics=[fid]", *bound[2:]
    )
    assert figures(alone)["fid"] == one["figures"]["fid.small"]["value"] != one["figures"]["fid"]["value"]
    assert result(alone)["floor"]["fid"]["value"] == result(out)["floor"]["fid.small"]["value"]


def test_published_statistics_are_known_by_their_content(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by their place: one name in two folders may be two files, and two names one."""
    for name, mean in {"a": 0.0, "b": 1.0, "c": 0.0}.items():
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / ("same.npz" if name != "c" else "other.npz"), mu=np.full(64, mean), sigma=np.eye(64))

    def statistics(name: str) -> Path:
        monkeypatch.chdir(tmp_path / name)
        [file] = (tmp_path / name).glob("*.npz")
        args = (*SEEN, *DRAWN, "metrics=[fid]", f"metrics.fid.reference={file.name}", "num_samples=16")
        return evaluated(tmp_path / name, f"ckpt={run}", *args, f"cache={tmp_path / 'cache'}") / "evaluation.json"

    a, b, c = (statistics(name) for name in "abc")
    text, alike = compare_results(a, b)
    assert not alike and "  metrics.fid.reference_sha256: " in text.partition("NOT be compared")[2], text
    text, alike = compare_results(a, c)
    assert alike and "metrics.fid.reference: same.npz and other.npz" in text.partition("measured alike")[2], text


def test_likelihoods_of_images_without_a_class(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any negative label is none; and classes are not said to be drawn where no images are. Progress is shown."""
    shown: list[tuple[str, float | None, float]] = []
    monkeypatch.setattr(
        Progress, "show", lambda self, **_: shown.append((self.phase.name, self.phase.total, self.phase.done))
    )
    images, _ = few_digits()["test"].fetch(list(range(4)))
    for name, label in {"unknown": -1, "far": -5}.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=images.permute(0, 2, 3, 1), arr_1=np.full(4, label))
    np.savez(tmp_path / "bare.npz", arr_0=images.permute(0, 2, 3, 1))
    args = (f"ckpt={run}", "metrics=[bound]", "metrics.bound.num_steps=4", "device=cpu")
    found = [
        figures(evaluated(tmp_path, *args, f"against={tmp_path / name}.npz")) for name in ("bare", "unknown", "far")
    ]
    assert found[0] == found[1] == found[2] and "drawn in turn" not in caplog.text
    protocol = result(tmp_path / "out")["protocol"]
    assert protocol["num_generated"] == 0 and protocol["generated"].keys() == {"ckpt", "step", "weights", "precision"}
    assert [count for count in shown if count[0] == "likelihood" and count[2]] == [("likelihood", 4, 4)] * 3


def test_memorization_needs_no_more_than_the_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what one evaluation draws is not left for another's in the same folder."""
    copying = ("metrics=[nearest_neighbour,authenticity]", "against=test", "pairs=3", *SEEN)
    out = evaluated(tmp_path, f"ckpt={run}", *copying, *DRAWN)
    assert {"copied", "closeness", "authenticity"} <= figures(out).keys()
    assert result(out)["protocol"]["training"]["split"] == "train"
    assert (out / "closest_pairs.png").is_file()
    (out / "evaluation.png").touch()  # of an earlier comparison
    capsys.readouterr()
    fewer = evaluated(tmp_path, f"ckpt={run}", *SEEN, *DRAWN, "metrics=[vendi]")
    assert fewer == out and {file.name for file in out.glob("*.*")} == {"evaluation.json", "evaluation.md"}
    assert "closest_pairs" not in capsys.readouterr().out
    images, _ = few_digits()["train"].fetch(list(range(288)))
    np.savez(tmp_path / "train.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
    copies = evaluated(tmp_path, f"samples={tmp_path / 'train.npz'}", f"ckpt={run}", *copying)
    assert figures(copies)["copied"] == 1.0 and figures(copies)["authenticity"] == 0.0
