"""What a file may name: nothing is imported, called or read from the environment before it has passed."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.command_line.yaml_text import yaml_text
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.run.settings import RUN_DIR, flatten
from diffusion_lit.trust.gate import trusted
from diffusion_lit.trust.plain import MAX_DEPTH, MAX_VALUES, plain, read_yaml
from diffusion_lit.trust.recorded import platform, trusted_config
from tests.launch import config

PIXELS = "{_target_: diffusion_lit.space.PixelSpace}"


def settings(*overrides: str) -> dict[str, Any]:
    """A run's settings as a checkpoint has them."""
    data = ("model.resolution=8", "model.image_channels=1", "model.num_classes=10", "model.augmentation_dim=0")
    cfg = config(Path("/runs/one"), *data, f"space={PIXELS}", *overrides)
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


RUN = settings()


def changed(key: str, value: object, values: dict[str, Any] = RUN) -> dict[str, Any]:
    """The settings with another value."""
    values = copy.deepcopy(values)
    *path, last = key.split(".")
    node = values
    for name in path:
        node = node[name]
    node[last] = value
    return values


def denoiser(key: str, value: object) -> DictConfig:
    return trusted(changed(key, value, RUN["denoiser"]), Denoiser, "x.ckpt")


def test_what_training_records_passes_and_is_built() -> None:
    passed = trusted(RUN["denoiser"], Denoiser, "x.ckpt")
    assert passed == OmegaConf.create(RUN["denoiser"])
    assert isinstance(instantiate(passed), Denoiser)


@pytest.mark.parametrize("group", ["schedule", "parameterization"])
def test_every_model_of_the_project_passes(group: str) -> None:
    for file in (CONFIG_FOLDER / group).glob("*.yaml"):
        denoiser(group, OmegaConf.to_container(OmegaConf.load(file)))


def test_a_class_may_be_named_by_the_module_that_it_is_in() -> None:
    schedule = {"_target_": "diffusion_lit.schedule.cosine.CosineSchedule", "num_timesteps": 10}
    assert instantiate(denoiser("schedule", schedule)).schedule.num_timesteps == 10


TARGETS = [
    "os.system",
    "builtins.exec",
    "eval",
    "pathlib.Path.write_text",
    "numpy.load",
    "torch.load",
    "torch.hub.load",
    "hydra.utils.instantiate",
    "hydra.utils.get_object",
    "torch.nn.Linear",
    "diffusion_lit.checkpoint.torch.load",
    "diffusion_lit.command_line.command.os.system",
    "diffusion_lit.checkpoint.load_checkpoint",
    "diffusion_lit.picture.image.save_image",
    "diffusion_lit.picture.image.Image",
    "diffusion_lit.schedule.base.FixedPrecision",
    "diffusion_lit.schedule.LinearSchedule.__init__",
    "diffusion_lit.schedule.LinearSchedule.load_state_dict",
    "diffusion_lit.schedule",
    "diffusion_lit",
    "diffusion_lit.nowhere.Class",
    "diffusion_lit_evil.Class",
    "diffusion_lit.schedule..LinearSchedule",
    ".LinearSchedule",
    "diffusion_lit/schedule",
    "diffusion_lit.schedule.LinearSchedule\n",
    "diffusion_lit.callback.LastCheckpoint",
    "diffusion_lit.autoencoder.Autoencoder",
    "",
    7,
    None,
    True,
    ["os.system"],
    {"_target_": "os.system"},
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_no_other_target_passes(target: object) -> None:
    for place in ("", "network.", "schedule.", "parameterization.", "space."):
        with pytest.raises(ValueError, match="nothing in it was run") as caught:
            denoiser(f"{place}_target_", target)
        assert repr(f"{place}_target_") in str(caught.value) and "x.ckpt" in str(caught.value)


@pytest.mark.parametrize(
    "place, other",
    [
        ("network", "diffusion_lit.schedule.LinearSchedule"),
        ("schedule", "diffusion_lit.space.PixelSpace"),
        ("space", "diffusion_lit.model.UNet"),
        ("parameterization", "diffusion_lit.denoiser.Denoiser"),
    ],
)
def test_a_class_of_another_kind_is_refused(place: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"which is not a \w+, and one belongs there"):
        denoiser(place, {"_target_": other})


@pytest.mark.parametrize("key", ["network.channels", "schedule.num_timesteps", "network.unknown", "unknown"])
@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: [[node]], lambda node: {"a": {"b": node}}])
def test_no_object_is_built_where_a_value_belongs(key: str, wrap: Callable[[object], object]) -> None:
    for target in ("os.system", "diffusion_lit.space.PixelSpace"):
        with pytest.raises(ValueError, match="nothing in it was run"):
            denoiser(key, wrap({"_target_": target}))


@pytest.mark.parametrize("option", ["_partial_", "_convert_", "_args_", "_recursive_", "_mode_", "_anything_"])
@pytest.mark.parametrize("place", ["", "schedule.", "network."])
def test_hydra_s_other_keys_are_refused(option: str, place: str) -> None:
    for value in (True, "all", [], {"_target_": "os.system"}):
        with pytest.raises(ValueError, match=f"{option}'? is"):
            denoiser(f"{place}{option}", value)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${schedule} b", "${", "\\${x}", "???"])
@pytest.mark.parametrize("key", ["network.dropout", "_target_", "unknown"])
def test_interpolations_are_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="without interpolations"):
        denoiser(key, text)


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1, 2}, b"bytes", 1j, Path("x"), object(), {1: 2}, {None: 2}],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        denoiser("network.channels", value)


def test_values_without_end_are_refused_at_once() -> None:
    endless: list[object] = []
    endless.append(endless)
    bomb: list[object] = [0] * 10
    for _ in range(MAX_DEPTH - 5):
        bomb = [bomb] * 10
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, bomb, deep, [0] * MAX_VALUES):
        with pytest.raises(ValueError, match="nests them over"):
            plain({"a": value}, "x.ckpt")


def test_messages_do_not_obey_the_file() -> None:
    with pytest.raises(ValueError) as caught:
        denoiser("schedule._target_", "\x1b[2J" + "a" * 10_000)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 1000


NETWORKS = """
from pathlib import Path
from torch import nn
import torch
from diffusion_lit.model import Network, UNet
from diffusion_lit.schedule import Schedule

class Encoder:
    def __init__(self, width=1):
        self.width = width

class Own(UNet):
    def __init__(self, encoder: Encoder, anything=None, **options):
        super().__init__(**options)
        self.encoder, self.anything = encoder, anything

def function(**options):
    return None
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's own, which leaves a mark when it is imported."""
    folder = tmp_path / "own_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from own_package.networks import Own\n")
    (folder / "networks.py").write_text(NETWORKS + f"Path({str(tmp_path)!r}, 'imported').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own_package", "own_package.networks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def own(target: str = "own_package.networks.Own", **more: object) -> dict[str, Any]:
    network = RUN["denoiser"]["network"] | {"encoder": {"_target_": "own_package.networks.Encoder", "width": 3}} | more
    return changed("network", network | {"_target_": target}, RUN["denoiser"])


def test_one_s_own_class_passes_where_the_command_line_names_its_module(package: Path) -> None:
    with pytest.raises(ValueError, match=r"add allow=\[own_package\.networks\]"):
        trusted(own(), Denoiser, "x.ckpt")
    assert not (package / "imported").exists()
    for allow in (["own_package.networks"], ["own_package"]):
        network = instantiate(trusted(own(), Denoiser, "x.ckpt", allow)).network
        assert type(network).__name__ == "Own" and network.encoder.width == 3
    assert (package / "imported").exists()
    trusted(own("own_package.Own"), Denoiser, "x.ckpt", ["own_package"])
    trusted(own(anything={"_target_": "own_package.networks.Encoder"}), Denoiser, "x.ckpt", ["own_package"])


@pytest.mark.parametrize(
    "target, words",
    [
        ("own_package.networks.function", "not a class"),
        ("own_package.networks.Encoder", "not a Network"),
        ("own_package.networks.nowhere", "not there"),
        ("own_package.networks.torch.load", "cannot be imported"),
        ("own_package.networks.UNet.load", "cannot be imported"),
        ("own_package.networks.Path", "which is pathlib"),
        ("own_package.networks_too.Own", "which is not a class of diffusion_lit"),
        ("own_package.Own", r"add allow=\[own_package\]"),
        ("os.system", "which is not a class of diffusion_lit"),
    ],
)
def test_allow_lets_in_no_more_than_it_names(package: Path, target: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trusted(own(target), Denoiser, "x.ckpt", ["own_package.networks"])


def test_an_own_class_lets_in_no_strangers(package: Path) -> None:
    for value in ({"_target_": "os.system"}, [{"_target_": "torch.load"}], {"a": {"_target_": "os.system"}}):
        with pytest.raises(ValueError, match="nothing in it was run"):
            trusted(own(anything=value), Denoiser, "x.ckpt", ["own_package"])
    with pytest.raises(ValueError, match="not a Encoder"):
        trusted(own(encoder={"_target_": "own_package.networks.Own"}), Denoiser, "x.ckpt", ["own_package"])


@pytest.mark.parametrize("allow", ["own_package", ["a b"], [""], [3], ["a..b"], ["os.system()"]])
def test_allow_is_a_list_of_modules(allow: Any) -> None:
    with pytest.raises(ValueError, match=r"give allow=\[package\.module\]"):
        trusted(RUN["denoiser"], Denoiser, "x.ckpt", allow)


@pytest.mark.parametrize("value", [None, "os.system", [], {}, {"network": {"_target_": "os.system"}}, 3], ids=repr)
def test_what_describes_no_object_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="should describe a Denoiser"):
        trusted(value, Denoiser, "x.ckpt")


# The whole configuration of a run.

VARIANTS: list[tuple[str, ...]] = [
    (),
    ("strategy=ddp", "optimizer=adam", "lr_schedule=warmup_cosine", "logger=[csv,tensorboard,wandb]"),
    ("strategy=fsdp", "lr_schedule=constant", "augmentation=edm", "feature=inception"),
    ("experiment=ddpm_cifar10",),
    *((f"data={path.stem}", "loss=hybrid") for path in sorted((CONFIG_FOLDER / "data").glob("[hmsw]*.yaml"))),
    ("loss=uncertainty", "weighting=p2", "density=importance", "sampler=unipc", "model=base"),
    ("+metrics@callback.fid=[kid,precision_recall]",),
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_every_run_s_configuration_passes(overrides: tuple[str, ...]) -> None:
    recorded = settings(*overrides)
    assert trusted_config(recorded, "x.ckpt") == OmegaConf.create(recorded)


def test_addresses_of_data_pass() -> None:
    for urls in ("https://host:80/x/{000..009}.tar?a=b", ["a.tar", "../b.tar"], "s3://bucket/x.tar", None):
        trusted_config(changed("data.urls", urls, settings("data=webdataset")), "x.ckpt")


def test_the_platform_s_classes_are_those_that_conf_names() -> None:
    named = {target for group in platform().values() for target in group}
    texts = "\n".join(path.read_text() for path in CONFIG_FOLDER.rglob("*.yaml"))
    foreign = {line.split()[-1] for line in texts.splitlines() if "_target_:" in line and "diffusion_lit" not in line}
    assert named == foreign and len(named) > 5


PLACES = [
    *("model", "schedule", "optimizer", "lr_schedule", "trainer", "data", "loss", "module", "denoiser", "sampler"),
    *("callback.ema", "callback.best_checkpoint", "logger.csv", "module.optimizer", "module.denoiser.network"),
    *("callback.fid.extractor", "callback.sample_grid.sampler", "loss.density", "data.augmentation"),
]


@pytest.mark.parametrize("place", PLACES)
def test_no_stranger_passes_anywhere_in_a_run(place: str) -> None:
    for target in ("os.system", "diffusion_lit.picture.image.save_image", "torch.optim.SGD"):
        with pytest.raises(ValueError, match="nothing in it was run"):
            trusted_config(changed(f"{place}._target_", target), "x.ckpt")


@pytest.mark.parametrize("key", ["seed", "guidance", "new", "callback.ema.decay", "trainer.plugins", "optimizer.lr"])
def test_no_object_is_built_elsewhere_in_a_run(key: str) -> None:
    for target in ("os.system", "torch.optim.AdamW", "lightning.pytorch.Trainer"):
        for value in ({"_target_": target}, [{"_target_": target}], {"a": {"_target_": target}}):
            with pytest.raises(ValueError, match="nothing in it was run"):
                trusted_config(changed(key, value), "x.ckpt")


@pytest.mark.parametrize(
    "place, target",
    [
        ("optimizer", "lightning.pytorch.Trainer"),
        ("trainer", "torch.optim.AdamW"),
        ("callback.ema", "lightning.pytorch.loggers.CSVLogger"),
        ("logger.csv", "lightning.pytorch.callbacks.ModelCheckpoint"),
        ("model", "torch.optim.AdamW"),
        ("callback.ema", "diffusion_lit.model.UNet"),
        ("callback.fid.kid", "diffusion_lit.model.UNet"),
        ("loss.weighting", "diffusion_lit.density.UniformDensity"),
    ],
)
def test_the_platform_s_classes_belong_to_their_groups(place: str, target: str) -> None:
    with pytest.raises(ValueError, match="nothing in it was run"):
        trusted_config(changed(place, {"_target_": target}), "x.ckpt")


def test_one_s_own_classes_in_a_run(package: Path) -> None:
    recorded = changed("optimizer._target_", "torch.optim.SGD")
    trusted_config(recorded, "x.ckpt", ["torch.optim"])
    with pytest.raises(ValueError, match="not a Optimizer"):
        trusted_config(changed("optimizer._target_", "own_package.networks.Own"), "x.ckpt", ["own_package"])


@pytest.mark.parametrize(
    "key, value", [("optimizer._partial_", False), ("optimizer._convert_", "none"), ("model._partial_", True)]
)
def test_only_conf_s_options_of_hydra_pass_in_a_run(key: str, value: object) -> None:
    with pytest.raises(ValueError, match="which no configuration of this project has"):
        trusted_config(changed(key, value), "x.ckpt")


@pytest.mark.parametrize(
    "key, value",
    [
        ("callback.last_checkpoint.folder", "/elsewhere"),
        ("callback.last_checkpoint.folder", "/runs/one/../two"),
        ("callback.last_checkpoint.folder", "here"),
        ("callback.best_checkpoint.filename", "../../x"),
        ("callback.best_checkpoint.filename", "/x"),
        ("logger.csv.save_dir", "/runs/onetwo"),
        ("logger.csv.name", "../x"),
        ("trainer.default_root_dir", "/"),
        ("trainer.profiler", ["/runs/one/x"]),  # which would stay in the old run's folder
        ("logger.csv.dir", "here"),
    ],
)
def test_a_run_writes_into_its_own_folder(key: str, value: str) -> None:
    with pytest.raises(ValueError, match="outside of the run's folder"):
        trusted_config(changed(key, value), "x.ckpt")


@pytest.mark.parametrize("folder", ["/runs/one", "/", "/runs/one/", ".", "..", "/runs/./one", "", None, 1, ["/"]])
def test_what_passes_is_within_the_run_s_folder_by_the_rule_that_moves_it(folder: Any) -> None:
    """Whatever the file says that its folder is: what is not within it by text would stay where it is."""
    for place in ("/tmp/victim", "/runs/one/checkpoints", "/runs/one//etc", "//etc", "./x", "x", "/", "../x", "/runs"):
        values = changed("run_dir", folder, {"run_dir": "", "logger": {"csv": {"folder": place}}})
        moved = flatten(values, "/")["logger.csv.folder"].startswith(RUN_DIR)
        try:
            trusted_config(values, "x.ckpt")
        except ValueError as error:
            assert "outside of the run's folder" in str(error) and not moved
        else:
            assert moved, (folder, place)
    with pytest.raises(ValueError, match="outside of the run's folder"):
        trusted_config(changed("run_dir", folder) | {"logger": {"csv": {"folder": "/tmp/victim"}}}, "x.ckpt")


def test_figures_go_to_no_server_that_a_file_names() -> None:
    run = settings("logger=[csv,wandb]", "+logger.wandb.entity=team", "+logger.wandb.settings={base_url: 'http://x'}")
    with pytest.raises(ValueError, match=r"another server; if you trust it, give \+logger\.wandb\.settings= yourself"):
        trusted_config(run, "x.ckpt")
    assert trusted_config(changed("logger.wandb.settings", None, run), "x.ckpt").logger.wandb.entity == "team"


@pytest.mark.parametrize(
    "url", ["pipe:touch x", "{p,q}ipe:touch x", "https://a::pipe:touch x", "https://a/{b,::pipe}:x", ["a", "pipe:b"]]
)
def test_no_program_is_run_for_data(url: object) -> None:
    run = settings("data=webdataset")
    with pytest.raises(ValueError, match="a program could be run"):
        trusted_config(changed("data.urls", url, run), "x.ckpt")


# YAML.

YAMLS = [
    "a: !!python/object/apply:os.system ['touch mark']",
    "a: !!python/object/apply:pathlib.PosixPath [x]",
    "a: !!python/name:os.system",
    "a: &a [1]\nb: *a",
    "a: &a {b: 1}\nc:\n  <<: *a",
    "a: ${oc.env:HOME}",
    "a: [",
    "[" * 600,
    "- 1",
    "",
    "a: 2024-01-01",
    "1: 2",
    "\x00",
]


@pytest.mark.parametrize("text", YAMLS, ids=lambda text: repr(text[:30]))
def test_yaml_is_data(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        read_yaml(tmp_path / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_what_a_run_records_is_read_as_it_was(tmp_path: Path) -> None:
    recorded = RUN | {"a": [1e-5, 1e30, float("inf"), "1e5", "yes", "null", "2024-01-01", "1_000", None, True, "é\n"]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml_text(recorded | {"again": recorded["a"]}), encoding="utf-8")
    assert read_yaml(file) == OmegaConf.to_container(OmegaConf.load(file)) == recorded | {"again": recorded["a"]}
