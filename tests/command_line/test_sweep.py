"""Sweeps: names, failures, the table, being run again, searches."""

import csv
import json
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from omegaconf import OmegaConf

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.command_line.command import understood
from diffusion_lit.command_line.job import end_ranks
from diffusion_lit.command_line.shell import quote, read_arguments
from diffusion_lit.command_line.study import Study, distribution_of
from diffusion_lit.command_line.sweep import SweepTable, folder_name, identity, name_jobs
from diffusion_lit.module import DiffusionModule
from diffusion_lit.run.objective import figures_of
from tests.launch import PATIENCE, TINY, Forked, holding, read_by_bash, run_forked

QUICK = (*TINY, "callback.fid=null", "callback.sample_grid=null", "trainer.max_steps=3")


def table(sweep: Path) -> dict[str, dict[str, str]]:
    """The rows of a sweep's table by their jobs."""
    with (sweep / "sweep.csv").open(newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def only_sweep(folder: Path) -> Path:
    [sweep] = (folder / "outputs" / "multirun").iterdir()
    return sweep


def start(*args: str, cwd: Path) -> Forked:
    command = [sys.executable, "-m", "diffusion_lit.train", "-m", *args]
    with (cwd / "log").open("a") as log:
        return Forked(command, cwd, {"PATH": ""}, log.fileno(), log.fileno())


@pytest.mark.parametrize(
    "text, name",
    [
        ("optimizer.lr-1e-05__schedule-cosine", "optimizer.lr-1e-05__schedule-cosine"),
        ("optimizer.lr--1", "optimizer.lr--1"),
        ("data.root-a/b", "data.root-a-b_"),
        ("data.root-a-b", "data.root-a-b"),
        ('data.root-"it\'s 写真 & ${x}"', "data.root-its-x_"),
        ("model.channel_multipliers-[1,2]", "model.channel_multipliers-1-2_"),
        ("~callback.fid", "callback.fid_"),
        ("", "job"),
        ("seed-" + "1" * 300, "seed-111"),
    ],
)
def test_a_folder_has_a_name_that_nothing_trips_over(text: str, name: str) -> None:
    found = folder_name(text)
    assert found.startswith(name) and len(found) <= 120
    assert name.endswith("_") or len(text) > 120 or found == name  # a checksum follows where something was replaced
    assert quote(found) == found and read_by_bash(f"python {found} ~/{found}")[0] == found  # as it is, to either
    assert folder_name(text) != folder_name(text + "'"), "different jobs have different folders"


def test_what_a_killed_sweep_left_half_written_is_removed_at_its_next_start(tmp_path: Path) -> None:
    (tmp_path / ".sweep.csv.7.partial").touch()
    SweepTable().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]


def test_what_is_not_swept_is_not_in_a_name() -> None:
    arguments = [
        "-m",
        "schedule=linear,cosine",
        "seed=1",
        "+trainer.x=[1,2]",
        "~callback.fid",
        "optimizer.lr=range(1,3)",
    ]
    *same, added = name_jobs(arguments)
    assert same == arguments
    assert added == "hydra.job.config.override_dirname.exclude_keys=[callback.fid,seed,trainer.x]"
    assert name_jobs(["seed=1"]) == ["seed=1"]


def test_a_sweep_is_the_same_in_any_order_and_with_more_trials() -> None:
    first = identity(["-m", "seed=1,2", "model=tiny", "hydra/launcher=joblib", "sweep.trials=3"])
    assert first == identity(["--multirun", "model=tiny", "resume=auto", "seed=1,2", "sweep.trials=9"])
    assert first != identity(["-m", "seed=1,3", "model=tiny"])


def test_the_best_and_the_last_of_any_figure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,fid/x\n1,0.5,\n2,0.25,9\n3,nan,\n4,0.75,\n")
    cfg = OmegaConf.create({"run_dir": str(tmp_path), "objective": "val/loss", "objective_mode": "min"})
    assert figures_of(cfg) == {"best": 0.25, "last": 0.75}
    cfg.objective_mode = "max"
    assert figures_of(cfg) == {"best": 0.75, "last": 0.75}
    cfg.objective = "fid/y"
    assert figures_of(cfg) == {}
    assert "objective=fid/y has no value" in caplog.text and "choose one of fid/x, val/loss" in caplog.text
    (tmp_path / "metrics.csv").write_text("step,epoch,images_seen,size/batch,train/lr,train/loss\n1,1,2,3,4,5\n")
    cfg.objective = "val/loss"
    assert figures_of(cfg) == {}
    assert "let trainer.val_check_interval be at most the steps of a run, or choose one of train/loss" in caplog.text
    assert "size/" not in caplog.text and "epoch" not in caplog.text and "train/lr" not in caplog.text


@pytest.mark.parametrize("sweeper", [(), ("sweep=optuna",)])
def test_a_mode_that_there_is_not_ends_a_sweep_with_words_and_code_1(sweeper: tuple[str, ...], tmp_path: Path) -> None:
    args = ("-m", *sweeper, "seed=1,2", "objective_mode=minimize", *QUICK)
    done = run_forked("train", *args, cwd=tmp_path, env={"PATH": ""})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "objective_mode" in done.stderr and "minimize" in done.stderr and "min or max" in done.stderr


def test_a_table_that_cannot_be_made_ends_a_sweep_with_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra makes a warning of what its callbacks raise, and ends with 0."""
    (tmp_path / "a job").mkdir()
    (tmp_path / "a job" / "job.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert stop.value.code == 1 and "error: the sweep's table could not be made" in capsys.readouterr().err


def test_options_may_stand_anywhere() -> None:
    """argparse takes settings in one piece; and a folder behind an option is no setting."""
    first = understood("train", ["-m", "--config-dir=my conf", "seed=1,2", "optimizer.lr=1"])
    assert first == ["-m", "--config-dir=my conf", "seed=1,2", "optimizer.lr=1"]
    assert understood("train", ["seed=1,2", "--config-dir", "my conf", "optimizer.lr=1", "-m"]) == [
        "--config-dir=my conf",
        "-m",
        "seed=1,2",
        "optimizer.lr=1",
    ]
    assert understood("train", ["data.root=a,b", "hydra.mode=MULTIRUN"])[0] == "data.root=a,b"
    assert name_jobs(["--config-dir", "a=b", "-m", "seed=1,2", "optimizer.lr=1"])[-1].endswith("=[optimizer.lr]")
    assert identity(["-m", "--config-dir", "conf", "seed=1,2"]) == identity(["-m", "seed=1,2", "allow=[mine]"])


def test_a_sweep_with_parts_of_one_s_own_is_continued_by_the_command_it_prints(tmp_path: Path) -> None:
    conf = tmp_path / "own conf=1" / "schedule"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("# Mine.\n_target_: diffusion_lit.schedule.LinearSchedule\nnum_timesteps: 20\n")
    args = ("schedule=mine", "optimizer.lr=-1,0.001", "--config-dir", "own conf=1", *QUICK, "allow=[tests]", "-m")
    done = run_forked("train", *args, cwd=tmp_path, env={"PATH": ""})
    assert done.returncode == 1, done.stderr
    rows = table(sweep := only_sweep(tmp_path))
    assert sorted(rows) == ["optimizer.lr--1", "optimizer.lr-0.001"]
    again = done.stderr.split("To try these again\n  ")[1].splitlines()[0]
    python, option, module, *words = shlex.split(again)
    assert (python, option, module) == (sys.executable, "-m", "diffusion_lit.train")
    done = run_forked("train", *words, cwd=tmp_path, env={"PATH": ""})
    assert only_sweep(tmp_path) == sweep and "to try these again" in done.stderr.lower()
    assert again == done.stderr.split("To try these again\n  ")[1].splitlines()[0]


@pytest.mark.parametrize(
    "override, kind, settings",
    [
        ("a=int(interval(1,8))", "IntDistribution", {"low": 1, "high": 8, "log": False}),
        ("a=interval(0.5,8)", "FloatDistribution", {"low": 0.5, "high": 8.0, "log": False}),
        ("a=tag(log,interval(1e-4,1e-2))", "FloatDistribution", {"low": 1e-4, "high": 1e-2, "log": True}),
        ("a=range(2,10,step=4)", "IntDistribution", {"low": 2, "high": 6, "step": 4}),
        ("a=x,[1,2],null", "CategoricalDistribution", {"choices": ("x", "[1,2]", "null")}),
    ],
)
def test_what_optuna_may_choose_from(override: str, kind: str, settings: dict[str, Any]) -> None:
    pytest.importorskip("optuna")
    found = distribution_of(OverridesParser.create().parse_override(override))
    assert type(found).__name__ == kind
    assert {name: getattr(found, name) for name in settings} == settings


def test_one_failing_job_ends_alone_and_the_table_has_all(tmp_path: Path) -> None:
    args = ("-m", "optimizer.lr=-1,0.001,1e-09", "seed=1", *QUICK)
    done = run_forked("train", *args, cwd=tmp_path)
    assert done.returncode == 1
    failed = "optimizer.lr--1: the optimizer cannot be built (Invalid learning rate: -1)"
    assert f"1 of 3 jobs failed:\n  {failed}" in done.stderr
    assert "Traceback" not in done.stderr
    sweep = only_sweep(tmp_path)
    rows = table(sweep)
    assert {name: row["status"] for name, row in rows.items()} == {
        "optimizer.lr--1": "failed",
        "optimizer.lr-0.001": "finished",
        "optimizer.lr-1e-09": "finished",
    }
    assert [name for name, row in rows.items() if row[""] == "best"] == ["optimizer.lr-0.001"]
    best = rows["optimizer.lr-0.001"]
    assert best["optimizer.lr"] == "0.001" and float(best["seconds"]) > 0
    assert float(best["best val/loss"]) <= float(best["last val/loss"])
    assert float(best["best val/loss"]) < float(rows["optimizer.lr-1e-09"]["best val/loss"])
    assert (tmp_path / best["folder"] / "checkpoints" / "last.ckpt").is_file()
    assert len((sweep / "sweep.md").read_text().splitlines()) == 5
    checkpoint = (tmp_path / best["folder"] / "checkpoints" / "best.ckpt").resolve()
    assert f"-m diffusion_lit.sample ckpt={checkpoint}\n" in done.stdout

    again = read_arguments(shlex.split(done.stderr.rsplit("diffusion_lit.train ", 1)[1]))
    steps = {file: file.stat().st_mtime_ns for file in sweep.glob("*/checkpoints/last.ckpt")}
    done = run_forked("train", *again, cwd=tmp_path)
    assert done.returncode == 1 and only_sweep(tmp_path) == sweep
    assert done.stdout.count("is finished") == 2, "finished jobs are skipped"
    assert {file: file.stat().st_mtime_ns for file in sweep.glob("*/checkpoints/last.ckpt")} == steps
    assert table(sweep)["optimizer.lr-0.001"] == best, "and stay in the table"


def test_a_rank_that_failed_does_not_end_the_process_that_runs_the_next_job() -> None:
    """Lightning's watch over it would; here it watches for another process, with a shorter look-out than its 5 s."""
    with subprocess.Popen(["sleep", "60"]) as main, subprocess.Popen(["false"]) as rank:
        _ChildProcessObserver(main.pid, [rank], sleep_period=0.3).start()  # type: ignore[arg-type]
        end_ranks()
        with pytest.raises(subprocess.TimeoutExpired):
            main.wait(0.6)
        main.kill()


@pytest.mark.slow
def test_a_job_that_diverges_on_two_processes_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranks fail; the next job trains for longer than Lightning's watch over them waits (by default 5 s)."""
    monkeypatch.setattr(_ChildProcessObserver.__init__, "__defaults__", (0.5,))
    args = ("-m", "optimizer.lr=1e+30,0.001", *QUICK, "trainer.devices=2", "callback.nan_guard.every_n_steps=1")
    done = run_forked("train", *args, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    rows = table(only_sweep(tmp_path))
    assert {name: row["status"] for name, row in rows.items()} == {
        "optimizer.lr-1e+30": "failed",
        "optimizer.lr-0.001": "finished",
    }
    assert all(seconds_of(tmp_path / row["folder"]) > 0.5 for row in rows.values())


def seconds_of(job: Path) -> float:
    return float(json.loads((job / "job.json").read_text())["seconds"])


def test_an_interruption_ends_the_whole_sweep_and_run_again_it_does_what_is_left(tmp_path: Path) -> None:
    args = ("seed=1,2", *QUICK, "resume=auto", "trainer.max_steps=15")

    def saved() -> bool:
        return any(tmp_path.glob("outputs/multirun/*/seed-1/checkpoints/last.ckpt"))

    with holding(DiffusionModule, "training_step", saved, let_go := tmp_path / "go"):
        process = start(*args, cwd=tmp_path)
    process.until(saved)
    process.send_signal(signal.SIGINT)
    let_go.touch()
    assert process.wait(PATIENCE) == 128 + signal.SIGINT, (tmp_path / "log").read_text()
    sweep = only_sweep(tmp_path)
    assert "The whole sweep:" in (tmp_path / "log").read_text() and not (sweep / "seed-2").exists()
    cut = load_checkpoint(sweep / "seed-1")["global_step"]
    assert 0 < cut < 15
    assert start(*args, cwd=tmp_path).wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    assert only_sweep(tmp_path) == sweep and f"last.ckpt, step {cut}" in (tmp_path / "log").read_text()
    assert {name: row["status"] for name, row in table(sweep).items()} == {"seed-1": "finished", "seed-2": "finished"}
    assert all(load_checkpoint(sweep / name)["global_step"] == 15 for name in table(sweep))


def search(*more: str) -> tuple[str, ...]:
    space = ("optimizer.lr=tag(log,interval(1e-6,1e-2))", "parameterization=v,eps")
    return ("-m", "sweep=optuna", *space, *QUICK, "resume=auto", *more)


def trials(sweep: Path, name: str = "val/loss") -> list[Any]:
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(sweep / "study.journal")))
    return load_study(study_name=name, storage=storage).trials


def test_a_search_tells_its_study_what_each_trial_came_to(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    assert run_forked("train", *search("sweep.trials=1"), cwd=tmp_path).returncode == 0
    done = run_forked("train", *search("sweep.trials=2"), cwd=tmp_path)  # one more
    assert done.returncode == 0, done.stderr
    sweep = only_sweep(tmp_path)
    found, rows = trials(sweep), table(sweep)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 2 and len(rows) == 2
    for trial in found:
        row = rows[f"optimizer.lr-{trial.params['optimizer.lr']}__parameterization-{trial.params['parameterization']}"]
        recorded = OmegaConf.load(tmp_path / row["folder"] / "config.yaml")
        assert recorded.optimizer.lr == trial.params["optimizer.lr"]
        assert float(row["best val/loss"]) == pytest.approx(trial.value, rel=1e-5)
        assert (row[""] == "best") == (trial.value == min(t.value for t in found))


def test_a_study_takes_note_of_failures_and_does_first_what_was_cut(tmp_path: Path) -> None:
    """The third job fails, the fifth is killed; a second start has the very fifth again, and two more."""
    pytest.importorskip("optuna")
    seen: list[list[str]] = []

    def launch(jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        assert len(jobs) == 1 and jobs[0][0] == "seed=1"
        seen.append(jobs[0])
        if len(seen) == 5:
            raise KeyboardInterrupt
        return [SimpleNamespace(return_value=None if len(seen) == 3 else float(len(seen)))]

    def sweep() -> None:
        study = Study(trials=7, parallel=1, seed=0, direction="max")
        study.settings = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}, "objective": "fid/x"})
        study.parser, study.launcher = OverridesParser.create(), SimpleNamespace(launch=launch)  # type: ignore[assignment]
        study.validate_batch_is_legal = lambda batch: None  # type: ignore[method-assign]
        study.sweep(["a=interval(0,1)", "seed=1"])

    with pytest.raises(KeyboardInterrupt):
        sweep()
    sweep()
    assert seen[5] == seen[4] and len({tuple(job) for job in seen}) == 7, "no other values twice"
    found = trials(tmp_path, "fid/x")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 4
    assert [trial.value for trial in found] == [1.0, 2.0, None, 4.0, 6.0, 7.0, 8.0]
    with pytest.raises(ValueError, match=r"sweep\.trials and sweep\.parallel must be positive, got 0 and 1"):
        Study(0, 1, 0, "min")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("optuna", [False, True], ids=["grid", "optuna"])
def test_killed_at_random_moments_a_sweep_comes_to_the_same_end(seed: int, optuna: bool, tmp_path: Path) -> None:
    if optuna:
        pytest.importorskip("optuna")
    args = search("sweep.trials=3")[1:] if optuna else ("seed=1,2,3", *QUICK, "resume=auto")
    args = (*args, "trainer.max_steps=15")
    draw = random.Random(seed)
    process = start(*args, cwd=tmp_path)
    process.until(lambda: list(tmp_path.glob("outputs/multirun/*/*/job.json")))  # three jobs of 15 steps are to come
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    kills = 1
    while True:
        process = start(*args, cwd=tmp_path)
        try:
            code = process.wait(draw.uniform(1, 8))  # kills it when this time is over
            break
        except subprocess.TimeoutExpired:
            kills += 1
            assert kills < 60, (tmp_path / "log").read_text()
    assert code == 0, (tmp_path / "log").read_text()
    sweeps = list((tmp_path / "outputs" / "multirun").iterdir())
    assert len(sweeps) == 1 or not optuna  # one that was killed before it had begun leaves no record
    rows = table(only_sweep(tmp_path))
    assert len(rows) == 3 and {row["status"] for row in rows.values()} == {"finished"}
    assert all(load_checkpoint(tmp_path / row["folder"])["global_step"] == 15 for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("devices", [1, 2])
def test_launchers_run_jobs_in_processes_of_their_own(launcher: str, devices: int, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    args = ("train", "-m", "seed=1,2", "optimizer.lr=0.001,-1", *QUICK, f"trainer.devices={devices}")
    done = subprocess.run(
        [sys.executable, "-m", f"diffusion_lit.{args[0]}", *args[1:], f"hydra/launcher={launcher}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "2 of 4 jobs failed" in done.stderr, done.stderr
    rows = table(only_sweep(tmp_path))
    assert sorted(name for name, row in rows.items() if row["status"] == "finished") == [
        "optimizer.lr-0.001__seed-1",
        "optimizer.lr-0.001__seed-2",
    ]
    for row in rows.values():
        record = json.loads((tmp_path / row["folder"] / "job.json").read_text())
        assert record["values"] == {"seed": row["seed"], "optimizer.lr": row["optimizer.lr"]}
