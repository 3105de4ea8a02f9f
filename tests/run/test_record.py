"""What a run says of itself: read back from its folder, W&B's offline file and TensorBoard's events."""

import importlib
import json
import os
import re
import runpy
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from diffusion_lit import environment
from diffusion_lit.checkpoint import load_checkpoint, load_denoiser
from diffusion_lit.command_line.command import choose_none
from diffusion_lit.derived import denoiser_settings, distinct, leaves, without_repeats
from diffusion_lit.environment import git_state
from diffusion_lit.logger.best_figures import BestFigures
from diffusion_lit.logger.csv import read_table
from diffusion_lit.run.record import run_name
from tests.launch import ROOT, TINY, config, run_forked, train_in
from tests.wandb_file import OfflineRun, read_offline_run

TOLD = ("trainer.max_steps=7", "trainer.log_every_n_steps=2")
NOTES = "why, it's = said"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout with a change that is not committed, and a file that git does not know."""
    folder = tmp_path_factory.mktemp("a = checkout")
    git(folder, "init")
    (folder / "own.py").write_text("before\n")
    (folder / ".gitignore").write_text("outputs\nwandb-*\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "one")
    (folder / "own.py").write_text("after\n")
    (folder / "new.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def run(checkout: Path) -> Path:
    """Seven steps on two ranks, with every logger, started in the checkout."""
    importlib.import_module("torch.utils.tensorboard")  # which reads what is written, too
    done = run_forked(
        "train",
        *TINY,
        *TOLD,
        "trainer.devices=2",
        "logger=[csv,tensorboard,wandb]",
        "logger.wandb.offline=true",
        "logger.wandb.log_model=true",
        "logger.wandb.tags=[one,two]",
        f'logger.wandb.notes="{NOTES}"',
        cwd=checkout,
        env={
            "WANDB_DATA_DIR": str(checkout / "wandb-data"),
            "WANDB_CACHE_DIR": str(checkout / "wandb-cache"),
            "WANDB_ERROR_REPORTING": "false",
        },
    )
    assert done.returncode == 0, done.stderr
    [folder] = (checkout / "outputs" / "train").iterdir()
    return folder


@pytest.fixture(scope="module")
def offline(run: Path) -> OfflineRun:
    return read_offline_run(run)  # of two ranks there is one


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def column(run: Path, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in read_table(run / "metrics.csv") if name in row}


def test_run_json_says_where_the_run_comes_from(run: Path, checkout: Path, record: dict[str, Any]) -> None:
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    told = record["git"]
    assert (told["commit"], told["branch"], told["changed"]) == (head.strip(), "main", ["own.py"])
    assert told["untracked"] == ["new.py"] and told["patch"] == "code.patch"
    git(checkout, "apply", "--reverse", "--check", str(run / "code.patch"))
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["machine"]["cpu_count"] == os.cpu_count() and record["machine"]["processes"] == 2
    assert record["started_in"] == str(checkout) and record["command"][:3] == ["python", "-m", "diffusion_lit.train"]
    assert record["parameters"] == sum(p.numel() for p in load_denoiser(run)[0].parameters())


def test_each_setting_is_recorded_once(run: Path, offline: OfflineRun) -> None:
    checkpoint = load_checkpoint(run)
    assert checkpoint["config"] == OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert checkpoint["versions"] == json.loads((run / "run.json").read_text())["versions"]
    for text in (json.dumps(checkpoint["config"]), json.dumps(offline.config)):
        assert text.count("diffusion_lit.model.UNet") == text.count("diffusion_lit.schedule.LinearSchedule") == 1
    assert json.dumps(offline.config).count("diffusion_lit.sampler.DDIMSampler") == 1  # callbacks have the same
    assert offline.config["model"]["channels"] == 8 and offline.config["denoiser"].keys() == {"_target_"}


def test_wandb_knows_the_run(run: Path, offline: OfflineRun, record: dict[str, Any]) -> None:
    started = offline.run
    assert started.display_name.startswith("model.channels=8 ") and not started.run_group
    assert list(started.tags) == ["one", "two"] and started.notes == NOTES
    assert started.run_id == record["wandb"] == load_checkpoint(run)["wandb"]
    told = offline.config["run"]
    assert {key: told[key] for key in ("git", "versions", "machine", "parent", "parameters")} == {
        key: record[key] for key in ("git", "versions", "machine", "parent", "parameters")
    }
    assert told["overrides"] == record["command"][3:] and NOTES in " ".join(told["overrides"])
    assert "code.patch" in offline.files


def test_wandb_has_the_figures_of_the_table_on_the_axis_of_steps(run: Path, offline: OfflineRun) -> None:
    assert offline.metrics["*"].step_metric == "trainer/global_step"
    names = {name for row in read_table(run / "metrics.csv") for name in row} - {"step"}
    assert {"val/loss", "train/loss", "fid/pixels_21"} <= names
    for name in names:
        assert offline.column(name) == pytest.approx(column(run, name)), name
    assert 7 in {row["trainer/global_step"] for row in offline.history if "samples._type" in row}
    assert sum(path.startswith("media/images/samples") for path in offline.files) >= 2


def test_wandb_s_summary_has_the_best_and_its_step(run: Path, offline: OfflineRun) -> None:
    for name in ("val/loss", "fid/pixels_21"):
        values = column(run, name)
        step = min(values, key=lambda s: values[s])
        assert len(values) > 1 and offline.summary[f"{name}_best"] == pytest.approx(values[step])
        assert offline.summary[f"{name}_best_step"] == step
        assert offline.summary[name] == pytest.approx(values[max(values)])
    assert "train/loss_best" not in offline.summary


def test_wandb_keeps_the_model_where_that_is_asked_for(run: Path, offline: OfflineRun, record: dict[str, Any]) -> None:
    [model] = offline.artifacts
    assert (model.name, model.type) == (f"model-{record['wandb']}", "model")
    assert set(model.aliases) == {"latest", "step-7"}
    sizes = {content.path: content.size for content in model.manifest.contents}
    assert sizes == {name: (run / "checkpoints" / name).stat().st_size for name in ("best.ckpt", "last.ckpt")}


def test_tensorboard_compares_runs_by_one_figure(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    content = events.PluginTagToContent("hparams")
    started = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    metrics = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment.metric_infos
    assert started["model.channels"].number_value == 8
    assert started["schedule._target_"].string_value == "diffusion_lit.schedule.LinearSchedule"
    assert not any("network" in name for name in started)
    assert [metric.name.tag for metric in metrics] == ["hp_metric"]
    best = min(column(run, "val/loss").values())
    assert events.Scalars("hp_metric")[-1].value == pytest.approx(best) and min(
        event.value for event in events.Scalars("hp_metric")
    ) == pytest.approx(best)
    assert {event.step: event.value for event in events.Scalars("val/loss")} == pytest.approx(column(run, "val/loss"))
    assert events.Images("samples")
    assert b"code.patch" in events.Tensors("run/text_summary")[0].tensor_proto.string_val[0]


def test_no_logger_is_a_choice(tmp_path: Path) -> None:
    assert choose_none(["logger=null", "resume=null"]) == ["logger=[]", "resume=null"]
    train_in(tmp_path, "logger=[]", "trainer.max_steps=1", "callback.fid=null", "callback.sample_grid=null")
    written = {path.name for path in tmp_path.iterdir()}
    assert {"run.json", "config.yaml"} <= written and not {"metrics.csv", "wandb", "tensorboard"} & written


# The parts, one by one.


def test_what_repeats_nothing_is_kept(tmp_path: Path) -> None:
    whole: Any = OmegaConf.to_container(config(tmp_path, "module.seed=7"), resolve=True)
    once = without_repeats(whole)
    assert once["module"] == {"_target_": whole["module"]["_target_"], "seed": 7}
    assert once["denoiser"] == {"_target_": whole["denoiser"]["_target_"]}
    assert denoiser_settings(once) == denoiser_settings(whole) == whole["denoiser"]
    other = {**whole["denoiser"], "network": {**whole["model"], "channels": 16}}
    assert without_repeats({**whole, "denoiser": other})["denoiser"]["network"]["channels"] == 16
    assert denoiser_settings({}) is None


def test_another_sampler_of_a_callback_stands_out(tmp_path: Path) -> None:
    whole: Any = OmegaConf.to_container(config(tmp_path), resolve=True)
    whole["callback"]["fid"]["sampler"] = {**whole["sampler"], "num_steps": 5}
    told = leaves(distinct(whole))
    assert told["callback.fid.sampler.num_steps"] == 5 and told["sampler.num_steps"] == 3
    assert not any(key.startswith(("callback.sample_grid.sampler", "loss.density", "data.aug")) for key in told)


def test_best_figures() -> None:
    best = BestFigures({"accuracy": "max"})
    assert best.update({"val/loss": 2.0, "accuracy": 0.5, "train/loss": 1.0, "fid/a": float("nan")}, 3) == [
        "val/loss",
        "accuracy",
    ]
    assert best.update({"val/loss": 3.0, "accuracy": torch.tensor(0.75), "fid/a": 9}, 4) == ["accuracy", "fid/a"]
    assert best.update({"val/loss": 2.0, "accuracy": 0.75}, 5) == []  # the first of equals
    assert best.values == {"val/loss": 2.0, "accuracy": 0.75, "fid/a": 9.0}
    assert best.steps == {"val/loss": 3, "accuracy": 4, "fid/a": 4}


NAMED: Mapping[str, tuple[list[str], str | None]] = {
    "schedule=cosine optimizer.lr=1e-3": (["schedule=cosine", "logger=[csv,wandb]", "optimizer.lr=1e-3"], None),
    "~callback.fid": (["~callback.fid", "hydra.run.dir=x", "resume=auto", "output_root=y"], None),
    "stamp": (["trainer.devices=2", "+logger.wandb.entity=team"], None),
    "schedule-cosine": (["schedule=cosine", "trainer.max_steps=3"], "schedule-cosine"),
    "data.root=" + 107 * "x" + "...": (["data.root=" + 300 * "x"], None),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_run_s_name_is_what_differs(name: str) -> None:
    overrides, cell = NAMED[name]
    assert run_name(overrides, cell, "outputs/train/stamp") == name


def test_a_patch_that_is_large_is_left_out(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = git_state.__wrapped__(str(checkout))
    assert state is not None and b"+after" in state.patch
    monkeypatch.setattr(environment, "MAX_PATCH", len(state.patch) - 1)
    state = git_state.__wrapped__(str(checkout))
    assert state is not None and not state.patch and state.facts["patch"].startswith("left out")
    assert git_state.__wrapped__(str(tmp_path)) is None


def test_a_repository_s_own_programs_are_not_run(checkout: Path, tmp_path: Path) -> None:
    """Those that git would run to watch, to show or to compare files."""
    folder, mark = tmp_path / "stranger", tmp_path / "mark"
    git(checkout, "clone", str(checkout), str(folder))
    (folder / ".gitattributes").write_text("* diff=own\n")
    (folder / "own.py").write_text("after\n")
    for key in ("core.fsmonitor", "diff.external", "diff.own.command", "diff.own.textconv", "core.pager"):
        git(folder, "config", key, f"touch '{mark}';")
    state = git_state.__wrapped__(str(folder))
    assert state is not None and b"+after" in state.patch and not mark.exists()


def test_wandb_s_sweep_file_is_of_settings_that_exist(tmp_path: Path) -> None:
    sweep = yaml.safe_load((ROOT / "examples" / "wandb" / "sweep.yaml").read_text())
    command = sweep["command"]
    assert command[:4] == ["${env}", "${interpreter}", "-m", "diffusion_lit.train"] and "${args_no_hyphens}" in command
    fixed = [argument for argument in command[4:] if not argument.startswith("$")]
    chosen = {key: told["values"][0] if "values" in told else told["min"] for key, told in sweep["parameters"].items()}
    cfg = config(tmp_path, *fixed, *(f"{key}={value}" for key, value in chosen.items()), tiny=False)
    assert sweep["metric"] == {"name": cfg.objective, "goal": "minimize"}
    assert sweep["project"] == cfg.logger.wandb.project


def test_wandb_s_workspace_shows_the_figures(offline: OfflineRun) -> None:
    workspace = runpy.run_path(str(ROOT / "examples" / "wandb" / "workspace.py"))
    patterns = [pattern for panels in workspace["SECTIONS"].values() for pattern in panels.values()]
    shown = ("train/loss", "train/lr", "val/loss", "fid/pixels_21")
    assert {name for name in shown if any(re.fullmatch(p, name) for p in patterns)} == set(shown)
    assert all(offline.column(name) for name in shown)
    assert workspace["STEPS"] == offline.metrics["*"].step_metric and "samples" in workspace["PICTURES"]
    for column in workspace["BEST"]:
        kind, _, name = column.partition(":")
        assert name in (offline.summary if kind == "summary" else leaves(offline.config)), column
