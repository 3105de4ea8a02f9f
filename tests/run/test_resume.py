"""What a run begins with: its own settings, the newest checkpoint that is whole, and what was changed, said."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wandb
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.checkpoint import damage, load_checkpoint, load_denoiser
from diffusion_lit.data import ArrayImages, DigitsData, Images
from diffusion_lit.derived import leaves
from diffusion_lit.logger.csv import read_table
from diffusion_lit.run.past import read_run
from diffusion_lit.run.restore import INHERITED, restore_settings
from diffusion_lit.run.resume import find_earlier_run, find_origin
from diffusion_lit.run.settings import (
    ABANDONED,
    ARCHITECTURE,
    TODAY,
    UNSEEN,
    Change,
    changes,
    plain_settings,
    remarks,
    under,
)
from tests.figures import scalars, table
from tests.launch import TINY, config, run_forked, train_in
from tests.repeats import slow_but
from tests.wandb_file import read_offline_run

QUIET = ("callback.fid=null", "callback.sample_grid=null")
SHORT = (*QUIET, "trainer.max_steps=4", "trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of a model with settings of its own, in a folder that a shell would stumble over."""
    folder = tmp_path_factory.mktemp("a run") / "lr=1, it's"
    options = ("schedule=cosine", "optimizer.lr=2e-3", "model.dropout=0.1", "trainer.log_every_n_steps=1")
    train_in(
        folder,
        *SHORT,
        *options,
        "callback.last_checkpoint.keep_last=2",
    )
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy of a run"))


def resumed(folder: Path, *overrides: str) -> object:
    """A run whose command line says nothing but where to resume, and these."""
    from diffusion_lit.training import train

    folder.mkdir(parents=True, exist_ok=True)
    return train(config(folder, *overrides, tiny=False), list(overrides))


# What was asked for, and what is asked now.


def test_a_run_s_own_settings_hold_and_the_new_ones_on_top(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From another folder, too: nothing but the path and what is to change is typed."""
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    resumed(
        tmp_path / "next",
        f"resume={json.dumps(str(run))}",
        "trainer.max_steps=6",
        "optimizer.lr=1e-4",
        "callback.ema.decay=0.5",
    )
    recorded = load_checkpoint(tmp_path / "next")
    old, new = load_checkpoint(run)["config"], recorded["config"]
    assert recorded["global_step"] == 6 and recorded["parent"] == str(run / "checkpoints" / "last.ckpt")
    assert new["schedule"] == old["schedule"] and new["model"] == old["model"]
    assert new["callback"]["last_checkpoint"]["folder"] == f"{tmp_path / 'next'}/checkpoints"
    assert recorded["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-4 * (0.01 + 0.99 * 5 / 100))
    for line in (
        "trainer.max_steps: 4 -> 6 (the same steps, unless the learning rate follows the budget)",
        "optimizer.lr: 0.002 -> 0.0001 (from the next step on; the optimizer's state is kept)",
        "callback.ema.decay: 0.998 -> 0.5 (from the next step on; the average so far is kept)",
    ):
        assert line in caplog.text
    assert caplog.text.count(" -> ") == 3
    assert json.loads((tmp_path / "next" / "run.json").read_text())["step"] == 4


def test_the_optimizer_asked_for_is_the_one_that_trains(run: Path, tmp_path: Path) -> None:
    """With another one its state starts anew; with another rate it is kept."""
    quoted = json.dumps(str(run))
    resumed(tmp_path / "adam", f"resume={quoted}", "trainer.max_steps=5", "optimizer=adam", "optimizer.lr=1e-3")
    resumed(tmp_path / "slow", f"resume={quoted}", "trainer.max_steps=5", "optimizer.weight_decay=0.5")
    steps = [
        load_checkpoint(tmp_path / name)["optimizer_states"][0]["state"][0]["step"].item() for name in ("adam", "slow")
    ]
    assert steps == [1, 5]
    slow = load_checkpoint(tmp_path / "slow")["optimizer_states"][0]["param_groups"][0]
    assert slow["weight_decay"] == 0.5 and load_checkpoint(tmp_path / "slow")["config"]["optimizer"]["lr"] == 2e-3


MODEL = "model.channels: 8 in the checkpoint, 16 now"
SCHEDULE = r"schedule\._target_: .*CosineSchedule in the checkpoint, .*LinearSchedule now"


@pytest.mark.parametrize(
    "override, said",
    slow_but(
        [("model.channels=16", MODEL), ("schedule=linear", SCHEDULE)],
        [
            ("model.channels=16", MODEL),
            ("schedule=linear", SCHEDULE),
            ("parameterization=eps", r"parameterization\._target_"),
            ("loss=uncertainty", r"loss\._target_"),
        ],
    ),
)
def test_what_weights_cannot_outlive_is_refused(run: Path, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)cannot resume from .*{said}"):
        resumed(tmp_path, f"resume={json.dumps(str(run))}", override)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "earlier, own, kept, dropped",
    [
        (["optimizer.lr=1"], ["optimizer.lr=2"], {"optimizer.lr": 2}, {}),
        (
            ["optimizer=adam", "optimizer.lr=1"],
            ["optimizer.betas=[0.5,0.9]"],
            {"optimizer._target_": "torch.optim.Adam", "optimizer.lr": 1},
            {},
        ),
        (["optimizer.weight_decay=1"], ["optimizer=adam"], {"optimizer.lr": 2e-4}, {"optimizer.weight_decay"}),
        (
            ["strategy=hsdp", "trainer.strategy.num_replicas=1"],
            ["strategy=ddp"],
            {"trainer.strategy._target_": "lightning.pytorch.strategies.DDPStrategy"},
            {"trainer.strategy.num_replicas"},
        ),
        (["callback.fid=null"], ["callback.fid.num_samples=9"], {"callback.fid.num_samples": 9}, {}),
        (["callback.fid.num_samples=9"], ["callback.fid=null"], {"callback.fid": None}, {}),
        (["trainer.val_check_interval=7"], [], {"callback.last_checkpoint.every_n_steps": 7}, {}),
        (["+trainer.min_steps=1"], ["seed=3"], {"trainer.min_steps": 1, "data.seed": 3}, {}),
        (["resume=x", "run_dir=y", "output_root=z"], [], {"resume": None, "output_root": "outputs"}, {}),
    ],
)
def test_command_lines_add_up(
    earlier: list[str], own: list[str], kept: dict[str, object], dropped: set[str], tmp_path: Path
) -> None:
    recorded = {
        "config": OmegaConf.to_container(
            config(tmp_path / "old", *[o for o in earlier if "run_dir" not in o], tiny=False), resolve=True
        ),
        "overrides": earlier,
        "started_in": os.getcwd(),
    }
    cfg, both = restore_settings(recorded, "FILE", config(tmp_path / "new", *own, tiny=False), own)
    assert both[len(both) - len(own) :] == own and "overrides" not in cfg
    assert {key: OmegaConf.select(cfg, key) for key in kept} == kept
    assert all(OmegaConf.select(cfg, key) is None for key in dropped)
    assert cfg.run_dir == str(tmp_path / "new") and str(tmp_path / "old") not in OmegaConf.to_yaml(cfg, resolve=True)


def test_a_default_that_has_changed_since_leaves_a_run_as_it_was(tmp_path: Path) -> None:
    """What the run recorded stands; and an option that did not exist yet has its default."""
    old = OmegaConf.to_container(config(tmp_path / "old", tiny=False), resolve=True)
    assert isinstance(old, dict)
    old["optimizer"]["lr"] = 0.5
    del old["schedule"]["shift"]
    recorded = {"config": old, "overrides": [], "started_in": os.getcwd()}
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", "seed=1", tiny=False), ["seed=1"])
    assert cfg.optimizer.lr == 0.5 and cfg.schedule.shift == 1.0 and cfg.seed == 1
    explicit, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), ["optimizer.lr=1e-3"])
    assert explicit.optimizer.lr == 1e-3


def test_classes_that_were_called_otherwise_are_those_of_today(tmp_path: Path) -> None:
    """Loggers and the strategy once lay elsewhere in the package; a run that names them there resumes."""
    chosen = [
        "logger=[csv,tensorboard,wandb]",
        "strategy=hsdp",
        "logger.wandb.offline=true",
        "logger.wandb.project=mine",
    ]
    old = OmegaConf.to_container(config(tmp_path / "old", *chosen, tiny=False), resolve=True)
    assert isinstance(old, dict)
    former = {"csv": "csv_logger", "tensorboard": "tensorboard_logger", "wandb": "wandb_logger"}
    for name, module in former.items():
        old["logger"][name]["_target_"] = f"diffusion_lit.{module}.{old['logger'][name]['_target_'].rpartition('.')[2]}"
    old["trainer"]["strategy"]["_target_"] = "diffusion_lit.hybrid_shard.HybridShardStrategy"
    recorded = {"config": old, "overrides": chosen, "started_in": os.getcwd()}
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), [])
    today = config(tmp_path / "new", *chosen, tiny=False)
    for part in ("logger", "trainer.strategy"):
        assert OmegaConf.to_container(OmegaConf.select(cfg, part), resolve=True) == OmegaConf.to_container(
            OmegaConf.select(today, part), resolve=True
        )


def test_an_option_that_a_network_did_not_have_yet_is_as_the_network_was(tmp_path: Path) -> None:
    """Although today's file of its experiment has another value."""
    old = OmegaConf.to_container(config(tmp_path / "old", "model=ddpm", tiny=False), resolve=True)
    assert isinstance(old, dict)
    for name in ("norm_eps", "frequency_shift"):
        del old["model"][name]
    recorded = {"config": old, "overrides": ["model=ddpm"], "started_in": os.getcwd()}
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", "seed=1", tiny=False), ["seed=1"])
    assert (cfg.model.norm_eps, cfg.model.frequency_shift, cfg.model.resampling) == (1e-5, 0, "conv_same")
    own = ["model.norm_eps=1e-4"]
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", *own, tiny=False), own)
    assert (cfg.model.norm_eps, cfg.model.frequency_shift) == (1e-4, 0)


def test_paths_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data` and `./data` are one; and a run continues from another folder with the data where they were."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    options = ("data=image_folder", "data.resolution=8", "data.root=data")
    old = OmegaConf.to_container(config(tmp_path / "old", *options, tiny=False), resolve=True)
    recorded = {"config": old, "overrides": list(options), "started_in": str(tmp_path)}
    monkeypatch.chdir("/")
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), [])
    assert cfg.data.root == str(tmp_path / "data")


def test_a_resumed_run_keeps_its_dashboard_and_not_the_places_of_another_machine(tmp_path: Path) -> None:
    """Nor a server of W&B, unless that is given again; the run's team and project are its own."""
    server = "+logger.wandb.settings={base_url: 'http://x'}"
    options = ["data=stream", "data.root=s3://x", "logger=[csv,wandb]", "+logger.wandb.entity=team"]
    options += ["logger.wandb.project=mine", "data.cache=/scratch", "data.cache_gigabytes=9"]
    old = OmegaConf.to_container(config(tmp_path / "old", *options, server, tiny=False), resolve=True)
    recorded = {"config": old, "overrides": [*options, server], "started_in": os.getcwd()}
    with pytest.raises(ValueError, match=r"logger\.wandb\.settings"):
        restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), [])
    cfg, _ = restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), [server, "data.cache=/here"])
    assert (cfg.logger.wandb.entity, cfg.logger.wandb.project) == ("team", "mine")
    assert cfg.logger.wandb.settings.base_url == "http://x" and cfg.data.cache == "/here"
    recorded["overrides"] = options
    cfg, told = restore_settings(recorded, "FILE", config(tmp_path / "new", tiny=False), [])
    assert (cfg.data.cache, cfg.data.cache_gigabytes, cfg.data.root) == (None, 50, "s3://x")
    assert "settings" not in cfg.logger.wandb and not any("cache" in override for override in told)


@pytest.mark.parametrize(
    "key, decides, forbidden, words",
    [
        ("model.dropout", True, True, ""),
        ("parameterization._target_", True, True, ""),
        ("loss._target_", True, True, ""),
        ("seed", True, False, "no longer the step"),
        ("trainer.precision", True, False, "no longer the step"),
        ("data.batch_size", True, False, "no image of the epoch is repeated"),
        ("optimizer.amsgrad", True, False, "starts anew"),
        ("weighting.gamma", True, False, "no longer the step"),
        ("trainer.max_minutes", False, False, "follows the budget"),
        ("callback.fid.num_samples", False, False, "the same to the bit"),
        ("sampler.num_steps", False, False, "the same to the bit"),
        ("data.latents", False, False, "the same to the bit"),
    ],
)
def test_what_a_change_means(key: str, decides: bool, forbidden: bool, words: str) -> None:
    change = Change(key, 1, 2)
    assert (change.decides, change.forbidden) == (decides, forbidden) and words in change.meaning


def test_every_setting_of_the_architecture_is_compared(tmp_path: Path) -> None:
    """An entry that names nothing, or what is left out of every comparison, would protect nobody."""
    cfg = config(tmp_path, tiny=False)
    cfg.space = {"_target_": "x", "scale": 1, "shift": 0, "sha256": None}
    keys = [key for key in leaves(plain_settings(cfg)) if not under(key, (*UNSEEN, *TODAY))]
    assert [entry for entry in ARCHITECTURE if not any(under(key, (entry,)) for key in keys)] == []


def test_a_part_that_is_turned_off_is_one_change(tmp_path: Path) -> None:
    old = OmegaConf.to_container(config(tmp_path / "old", tiny=False), resolve=True)
    recorded = {"config": old, "started_in": os.getcwd()}
    assert [str(c) for c in changes(recorded, config(tmp_path / "new", tiny=False))] == []
    found = changes(recorded, config(tmp_path / "new", "callback.fid=null", "callback.ema=null", tiny=False))
    assert [str(change) for change in found] == ["callback.ema: on -> None", "callback.fid: on -> None"]
    found = changes(recorded, config(tmp_path / "new", "~callback.fid", "~callback.ema", tiny=False))
    assert [str(change) for change in found] == ["callback.ema: on -> None", "callback.fid: on -> None"]


def test_each_change_is_said_once_and_all_of_them_agree(tmp_path: Path) -> None:
    old = OmegaConf.to_container(config(tmp_path / "old", tiny=False), resolve=True)
    new = ("optimizer=adam", "weighting=snr", "augmentation=flip", "sampler=ddpm")
    found = list(
        remarks(changes({"config": old, "started_in": os.getcwd()}, config(tmp_path / "new", *new, tiny=False)))
    )
    of_optimizer = [line for line in found if line.startswith("optimizer.")]
    assert len(of_optimizer) > 1 and all("state starts anew" in line for line in of_optimizer)
    for part in ("weighting", "augmentation", "sampler"):
        assert [line.partition(":")[0] for line in found if f"{part}._target_" in line] == [f"{part}._target_"]


def test_a_resume_says_what_changed_in_words_of_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A callback that was left out, a folder with checkpoints already, and an image that was lost since."""
    caplog.set_level("INFO")
    train_in(tmp_path / "a", *(o for o in SHORT if "fid" not in o), "callback.nan_guard.every_n_steps=1")
    load = DigitsData.load
    monkeypatch.setattr(DigitsData, "load", lambda data: {k: without_one(v) for k, v in load(data).items()})
    caplog.clear()
    resumed(tmp_path / "a", f"resume={tmp_path / 'a'}", "~callback.fid", "~callback.nan_guard", "trainer.max_steps=5")
    said = caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert "training images: 288 -> 287 (from the next step on, which is then no longer" in said
    assert "callback.fid: on -> None" in said and said.count("callback.fid") == 1
    assert "Please add the following callbacks" not in said and "is not empty" not in said


# Which run, and which of its checkpoints.


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """A byte of a weight, which torch would read without a word."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    data[entry.header_offset + entry.file_size // 2] ^= 0x10
    path.write_bytes(bytes(data))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


DAMAGES = [empty, cut, flip, folder, other]


@pytest.mark.parametrize("spoil", DAMAGES, ids=lambda spoil: spoil.__name__)
def test_a_damaged_checkpoint_is_left_aside_with_a_warning(
    copy: Path, spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = copy / "checkpoints" / "last.ckpt"
    before = find_origin(copy)
    assert (before.file, before.step) == (last, 4)
    (copy / "checkpoints" / "best.ckpt").unlink()
    spoil(last)
    (copy / "config.yaml").write_text("model: {_tar")  # nor does a cut configuration hide what is good
    origin = find_origin(copy)
    assert (origin.file.name, origin.step) == ("last_step_0000002.ckpt", 2)
    assert f"left aside: {last}" in caplog.text
    if spoil is not folder:
        with pytest.raises(ValueError, match=r"(?s)(damaged|not written by).*undamaged beside it: .*last_step_0000002"):
            find_origin(last)
        assert damage(last)
    options = ("schedule=cosine", "optimizer.lr=2e-3", "model.dropout=0.1", f"output_root={tmp_path}")
    cfg = config(tmp_path / "new", *SHORT, *options)
    fit(cfg)
    found = find_earlier_run(cfg)
    assert found is not None and found.file == origin.file


def fit(cfg: object) -> None:
    """Replace each `auto`, as a run does before it looks for an earlier one."""
    from hydra.utils import instantiate

    from diffusion_lit.agreement import choose_accelerator, fit_model_to_data

    choose_accelerator(cfg)  # type: ignore[arg-type]
    fit_model_to_data(cfg, instantiate(cfg.data))  # type: ignore[attr-defined, arg-type]


def test_a_run_without_any_good_checkpoint_is_said(copy: Path) -> None:
    for file in (copy / "checkpoints").glob("*.ckpt"):
        cut(file)
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be used"):
        find_origin(copy)


def test_which_is_newest_is_decided_by_the_step(copy: Path) -> None:
    """And not by times, which clocks and copies change."""
    os.utime(copy / "checkpoints" / "last.ckpt", (0, 0))
    assert find_origin(copy).step == 4


@pytest.mark.parametrize(
    "override, same",
    [
        ("seed=0", True),
        ("trainer.max_steps=9", True),
        ("callback.fid.num_samples=22", True),
        ("data.num_workers=1", True),
        ("seed=1", False),
        ("optimizer.lr=1e-3", False),
        ("weighting=min_snr", False),
        ("callback.ema.decay=0.9", False),
        ("data.batch_size=59", False),
        ("trainer.precision=bf16-mixed", False),
        ("augmentation=flip", False),
        ("label_dropout=0.2", False),
    ],
)
def test_auto_compares_all_that_decides_the_result(copy: Path, tmp_path: Path, override: str, same: bool) -> None:
    for file in set((copy / "checkpoints").iterdir()) - {copy / "checkpoints" / "last.ckpt"}:
        file.unlink()  # one is enough to be compared with
    options = ("schedule=cosine", "optimizer.lr=2e-3", "model.dropout=0.1", f"output_root={tmp_path}")
    cfg = config(tmp_path / "new", *(o for o in SHORT if "fid" not in o), *options, override)
    fit(cfg)
    assert (find_earlier_run(cfg) is not None) == same
    assert find_earlier_run(cfg, cell="another job of the sweep") is None


def test_a_run_that_validates_by_epochs_resumes(tmp_path: Path) -> None:
    """With an interval that is a share of an epoch, in which no step is a multiple of it."""
    interval = ("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=0.5")
    options = (*interval, "callback.last_checkpoint.every_n_steps=1")
    for name, more in (("a", ("trainer.max_steps=3",)), ("b", ("trainer.max_steps=5", f"resume={tmp_path / 'a'}"))):
        trainer = train_in(tmp_path / name, *QUIET, *options, *more)
    assert trainer is not None and trainer.global_step == 5


@pytest.mark.parametrize("setting", ["trainer.limit_val_batches=0", "trainer.check_val_every_n_epoch=1"])
def test_a_run_that_did_not_validate_at_its_end_is_finished_all_the_same(setting: str, tmp_path: Path) -> None:
    """Nor does a run that was cut just before it ended take another step when it is resumed."""
    folder = tmp_path / "whole"
    trainer = train_in(folder, *QUIET, setting, "trainer.max_steps=6")
    assert trainer is not None and trainer.global_step == 6
    assert train_in(tmp_path / "more", f"resume={folder}", tiny=()) is None
    (folder / "run.json").unlink()
    trainer = train_in(tmp_path / "end", f"resume={folder}", tiny=())
    assert trainer is not None and trainer.global_step == 6


# A folder for one run.


def test_a_second_run_into_a_folder_is_refused(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"(?s)holds a run already.*diffusion_lit.train 'resume=.*choose another"):
        train_in(copy, *SHORT)
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in copy.rglob("*") if path.is_file()} - set(before) <= {copy / ".lock"}


def test_a_run_may_continue_in_its_own_folder(copy: Path) -> None:
    """As a job script does that a scheduler starts again."""
    rows = (copy / "metrics.csv").read_text().splitlines()
    settings = set(OmegaConf.load(copy / "config.yaml"))
    resumed(copy, f"resume={json.dumps(str(copy))}", "trainer.max_steps=6")
    assert set(OmegaConf.load(copy / "config.yaml")) == settings
    after = (copy / "metrics.csv").read_text().splitlines()
    assert after[: len(rows)] == rows and len(after) > len(rows)
    assert load_checkpoint(copy)["global_step"] == 6


def test_a_branch_in_a_run_s_own_folder_replaces_nothing_of_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From an earlier step on: what is saved of later ones is set aside, and the newest is the branch's."""
    run = tmp_path / "run"
    every = ("callback.last_checkpoint.every_n_steps=2", "callback.last_checkpoint.keep_last=3")
    pictures = ("callback.fid=null", "sampler.num_steps=1", "trainer.log_every_n_steps=1")
    options = ("trainer.max_steps=6", "callback.step_checkpoint.every_n_train_steps=5")
    train_in(run, *pictures, *every, *options)
    saved, old = run / "checkpoints", steps(run / "checkpoints")
    assert old == {"last": 6, "last_step_0000002": 2, "last_step_0000004": 4, "step_0000005": 5, "best": 6}
    second = load_checkpoint(saved / "last_step_0000002.ckpt")["state_dict"]
    for abandoned in (old, {"last": 5, "last_step_0000004": 4, "best": 3}):
        options = (f"resume={saved / 'last_step_0000002.ckpt'}", "optimizer.lr=1e-4", "trainer.max_steps=5")
        train_in(run, *options, "callback.step_checkpoint=null", tiny=())
        kept = steps(saved)
        assert kept == {"last": 5, "last_step_0000002": 2, "last_step_0000004": 4, "best": 3}
        assert find_origin(run).step == 5
        [aside] = [path for path in (run / "abandoned").iterdir() if f"are now in {path}" in caplog.messages[-1]]
        assert steps(aside / "checkpoints") == {name: step for name, step in abandoned.items() if step > 2}
        assert (read_run(aside).step, read_run(run).step) == (abandoned["last"], 5), "with figures and pictures"
        assert [row["step"] for row in read_run(aside).rows] == [*range(abandoned["last"] + 1)]
        assert list(read_run(aside).pictures["samples"]) == [3, abandoned["last"]]
        assert find_origin(aside).step == abandoned["last"]
        auto = config(tmp_path / "new", f"output_root={tmp_path}", *pictures, *every, *options)
        fit_model_to_data(auto, instantiate(auto.data))
        assert (found := find_earlier_run(auto)) is None or ABANDONED not in found.file.parts
    again = load_checkpoint(saved / "last_step_0000002.ckpt")["state_dict"]
    assert all(torch.equal(w, again[name]) for name, w in second.items())


def test_a_renamed_run_that_continues_where_it_is_keeps_its_best(tmp_path: Path) -> None:
    """Lightning finds the best checkpoint by its place alone, and would let any later one replace it."""
    follow = ("callback.best_checkpoint.monitor=train/lr", "trainer.log_every_n_steps=1", "lr_schedule=warmup")
    train_in(tmp_path / "old", *QUIET, *follow, "trainer.max_steps=3")
    (tmp_path / "old").rename(tmp_path / "new")
    resume = f"resume={tmp_path / 'new'}"
    trainer = train_in(tmp_path / "new", resume, "trainer.max_steps=6", tiny=())
    assert trainer is not None and steps(tmp_path / "new" / "checkpoints") == {"last": 6, "best": 3}
    assert trainer.checkpoint_callback.best_model_path == str(tmp_path / "new" / "checkpoints" / "best.ckpt")  # type: ignore[union-attr]
    train_in(tmp_path / "elsewhere", resume, "trainer.max_steps=9", tiny=())
    assert steps(tmp_path / "elsewhere" / "checkpoints") == {"last": 9, "best": 9}, "the best of its own folder"


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv"])
def test_a_folder_of_something_else_is_not_written_into(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} is not of a run in this folder, and would be replaced"):
        train_in(tmp_path, *SHORT)
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def steps(folder: Path) -> dict[str, int]:
    return {path.stem: load_checkpoint(path)["global_step"] for path in folder.glob("*.ckpt")}


@pytest.mark.parametrize("table", ["step,a\n1," + 200_000 * "1" + "\n", "step,a\n1,one\n"])
def test_a_damaged_table_of_figures_is_named_before_anything_is_written(table: str, copy: Path, tmp_path: Path) -> None:
    (copy / "metrics.csv").write_text(table)
    with pytest.raises(ValueError, match=r"metrics.csv is damaged: .*(field larger|'one').*move it away"):
        resumed(tmp_path / "new", f"resume={json.dumps(str(copy))}", "trainer.max_steps=6")
    assert not any((tmp_path / "new").iterdir())


def test_a_run_that_recorded_its_settings_thrice_resumes(run: Path, copy: Path, tmp_path: Path) -> None:
    """As runs once did: the network in `denoiser` and that in `module`, and Lightning's own loggers."""
    file = copy / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(file)
    recorded = checkpoint["config"]
    parts = {name: recorded[name] for name in ("schedule", "parameterization", "space")}
    recorded["denoiser"] = {**recorded["denoiser"], "network": recorded["model"], **parts}
    own = ("denoiser", "loss", "augmentation", "optimizer", "lr_schedule", "label_dropout", "seed")
    recorded["module"] = {**recorded["module"], **{name: recorded[name] for name in own}}
    target = "lightning.pytorch.loggers.TensorBoardLogger"
    recorded["logger"]["tensorboard"] = {"_target_": target, "save_dir": recorded["run_dir"], "name": "tensorboard"}
    del checkpoint["versions"]
    checkpoint["overrides"].append("logger=[csv,tensorboard]")
    torch.save(checkpoint, file)
    for weights in ("ema", "raw"):
        old, new = (load_denoiser(path, weights)[0].state_dict() for path in (copy, run))
        assert old.keys() == new.keys() and all(torch.equal(old[name], w) for name, w in new.items())
    cfg = config(tmp_path, "schedule=cosine", "optimizer.lr=2e-3", "model.dropout=0.1")
    cfg.model.update({key: recorded["model"][key] for key in ("resolution", "image_channels", "num_classes")})
    cfg.model.augmentation_dim, cfg.space = 0, recorded["space"]
    assert changes(checkpoint, cfg) == changes(load_checkpoint(run), cfg)
    trainer = resumed(tmp_path / "b", f"resume={json.dumps(str(copy))}", "trainer.max_steps=5")
    assert getattr(trainer, "global_step", None) == 5
    once = load_checkpoint(tmp_path / "b")["config"]
    assert once["denoiser"].keys() == once["module"].keys() == {"_target_"}
    assert once["logger"]["tensorboard"]["_target_"] == "diffusion_lit.logger.tensorboard.TensorBoardLogger"


def test_leftovers_of_a_killed_writer_are_removed(copy: Path) -> None:
    leftover = copy / "checkpoints" / ".last.ckpt.123.partial"
    leftover.write_bytes(b"half")
    resumed(copy, f"resume={json.dumps(str(copy))}", "trainer.max_steps=5")
    assert not leftover.exists()


def test_tensorboard_and_wandb_continue_on_the_same_axis(tmp_path: Path) -> None:
    """Also from a checkpoint that lies before the newest figures: these are hidden, and drawn again."""
    options = (*QUIET, "logger=[csv,tensorboard,wandb]", "logger.wandb.offline=true", "trainer.log_every_n_steps=1")
    train_in(tmp_path / "a", *options, "trainer.max_steps=5", "callback.last_checkpoint.keep_last=2")
    wandb.finish()
    saved = tmp_path / "a" / "checkpoints" / "last_step_0000003.ckpt"
    train_in(tmp_path / "b", *options, "trainer.max_steps=6", f"resume={saved}")
    wandb.finish()
    figures = scalars(tmp_path / "b")
    assert list(figures["train/loss"]) == list(range(1, 7)) and figures == table(tmp_path / "b")  # and each once
    first, second = (json.loads((tmp_path / name / "run.json").read_text())["wandb"] for name in ("a", "b"))
    earlier, resumed = (read_offline_run(tmp_path / name) for name in ("a", "b"))
    assert first == second == resumed.run.run_id and resumed.run.display_name == earlier.run.display_name
    for name in ("val/loss", "train/loss"):  # the checkpoint was saved before the validation of its step
        assert len([row for row in resumed.history if name in row]) == len(resumed.column(name)), "each once"
        assert name == "train/loss" or 3 in earlier.column(name).keys() - resumed.column(name).keys()
    drawn = resumed.column("train/loss")
    assert drawn == pytest.approx({step: figures["train/loss"][step] for step in drawn})
    new = (f"resume={tmp_path / 'a'}", "logger.wandb.id=new", "objective_mode=max")
    train_in(tmp_path / "c", *options, "trainer.max_steps=6", *new)
    wandb.finish()
    assert json.loads((tmp_path / "c" / "run.json").read_text())["wandb"] != first
    values = {row["step"]: row["val/loss"] for row in read_table(tmp_path / "c" / "metrics.csv") if "val/loss" in row}
    assert len(values) == 2 and values[min(values)] > values[max(values)]  # so that the earlier run's is the best
    summary = read_offline_run(tmp_path / "c").summary
    assert summary["val/loss_best"] == pytest.approx(values[min(values)])
    assert summary["val/loss_best_step"] == min(values)


# Weights alone.


def test_a_new_run_begins_with_weights_and_classes_of_its_own(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The architecture is the checkpoint's; data, optimizer and class table are new."""
    caplog.set_level("INFO")
    options = (*(o for o in TINY if not o.startswith("model.")), *QUIET, "optimizer.lr=0", "trainer.max_steps=1")
    resumed(tmp_path / "same", f"init={json.dumps(str(run))}", "init_weights=raw", *options, "optimizer.weight_decay=0")
    before, after = load_checkpoint(run), load_checkpoint(tmp_path / "same")
    assert all(torch.equal(w, after["state_dict"][name]) for name, w in before["state_dict"].items())
    assert after["config"]["schedule"] == before["config"]["schedule"] and after["global_step"] == 1
    assert after["parent"] is None and after["config"]["optimizer"]["lr"] == 0
    five = "data._target_=tests.run.test_resume.FiveDigits"
    resumed(tmp_path / "five", f"init={json.dumps(str(run))}", *options, "optimizer.weight_decay=0", five)
    table = load_checkpoint(tmp_path / "five")["state_dict"]["denoiser.network.label.weight"]
    assert len(table) == 6 and "new: denoiser.network.label.weight, since the classes are others" in caplog.text
    averaged = load_denoiser(run, "ema")[0].state_dict()
    mine = load_denoiser(tmp_path / "five", "raw")[0].state_dict()
    assert all(torch.equal(w, mine[name]) for name, w in averaged.items() if name != "network.label.weight")
    with pytest.raises(
        ValueError, match=r"(?s)another architecture.*first.weight.*\[8, 1, 3, 3\] .*\[16, 1, 3, 3\] now"
    ):
        resumed(tmp_path / "wide", f"init={json.dumps(str(run))}", *options, "model.channels=16")


@pytest.mark.parametrize("chosen", [("model=dit_tiny", "model.depth=1"), ("model=ddpm", "model.dropout=0.3")])
def test_a_network_that_was_taken_over_stays(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """From a run whose experiment had chosen it, by `init`: no command line of the new run says which it is."""
    old = OmegaConf.to_container(config(tmp_path / "old", *chosen, tiny=False), resolve=True)
    assert isinstance(old, dict)
    recorded = {"config": old, "overrides": ["experiment=mine", *chosen[1:]], "started_in": os.getcwd()}
    cfg, overrides = restore_settings(recorded, "FILE", config(tmp_path / "1", tiny=False), ["seed=1"], INHERITED)
    assert cfg.model == old["model"] and cfg.seed == 1
    for i in (2, 3):  # resumed, and resumed again
        recorded = {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "overrides": overrides,
            "started_in": os.getcwd(),
        }
        cfg, overrides = restore_settings(recorded, "FILE", config(tmp_path / str(i), tiny=False), [])
        assert cfg.model == old["model"] and cfg.seed == 1


def test_a_pasted_command_resumes_from_any_folder(run: Path, tmp_path: Path) -> None:
    """The very line that the product printed, through bash, from another folder, with a path that needs quotes."""
    from tests.launch import read_by_bash

    (tmp_path / "elsewhere").mkdir()
    again = run_forked("train", f"resume={run}", cwd=tmp_path / "elsewhere")
    assert again.returncode == 0 and "is finished" in again.stdout, again.stderr
    assert not list(tmp_path.glob("elsewhere/outputs/train/*"))
    line = again.stdout.strip().splitlines()[-1].strip()
    arguments = read_by_bash(line)
    done = run_forked("train", *arguments[2:], cwd=tmp_path / "elsewhere")
    assert done.returncode == 0 and "to step 8 in" in done.stdout, done.stderr


class FiveDigits(DigitsData):
    """Those below five."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.class_names = list("01234")

    def load(self) -> dict[str, Images]:
        return {name: below_five(images) for name, images in super().load().items()}


def without_one(images: Images) -> Images:
    pixels, labels = images.fetch(list(range(1, len(images))))
    return ArrayImages(pixels, labels)


def below_five(images: Images) -> Images:
    pixels, labels = images.fetch(list(range(len(images))))
    assert labels is not None
    return ArrayImages(pixels[labels < 5], labels[labels < 5])
