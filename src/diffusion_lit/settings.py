"""What a run was asked for, what is asked of it now, and what the difference means."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command import CONFIG_FOLDER
from diffusion_lit.shell import PATHS, quote

__all__ = ["Change", "changes", "flatten", "restore_settings"]

ARCHITECTURE = (
    *("denoiser._target_", "module._target_", "model", "schedule", "parameterization", "loss._target_"),
    *("density._target_", "space._target_", "space.scale", "space.shift", "space.sha256"),
)
"""Settings that weights cannot outlive: by the beginning of their keys."""

UNSEEN = (
    *("run_dir", "output_root", "resume", "init", "logger", "callback.progress", "data.num_workers", "data.verify"),
    *("data.cache", "data.ahead", "objective", "allow", "trainer.default_root_dir", "trainer.log_every_n_steps"),
    *("trainer.enable", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "trainer.strategy"),
)
"""Settings of where a run is computed and what is written of it, which it would be foolish to compare runs by."""

SPECTATORS = (
    *("callback.fid", "callback.sample_grid", "callback.nan_guard", "callback.last_checkpoint", "callback.best"),
    *("callback.step_checkpoint", "feature", "sampler", "guidance", "trainer.val_check", "trainer.check_val"),
    *("trainer.limit_val", "trainer.num_sanity", "autoencoder", "space.autoencoder"),
)
"""Settings that look at training and leave it as it is."""

BUDGET = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_images", "trainer.max_minutes")

KEPT_STATE = ("optimizer.lr", "optimizer.betas", "optimizer.eps", "optimizer.weight_decay", "optimizer.fused")
"""Settings of an optimizer under which its state means the same."""


@dataclass(frozen=True)
class Change:
    """A setting that is not what it was."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"

    @property
    def forbidden(self) -> bool:
        """Whether the weights mean nothing under it."""
        return under(self.key, ARCHITECTURE)

    @property
    def decides(self) -> bool:
        """Whether the result of training depends on it, apart from how long it is."""
        return not under(self.key, (*UNSEEN, *SPECTATORS, *BUDGET))

    @property
    def meaning(self) -> str:
        """What it does to a run that is resumed with it, and to its exactness."""
        if under(self.key, BUDGET):
            return "the same steps, unless the learning rate follows the budget"
        if not self.decides:
            return "training itself stays the same to the bit"
        if self.key.startswith("optimizer."):
            kept = under(self.key, KEPT_STATE)
            return f"from the next step on; the optimizer's state {'is kept' if kept else 'starts anew'}"
        if self.key.startswith("callback.ema"):
            return "from the next step on; the average so far is kept"
        if self.key == "data.batch_size":
            return "from the next step on; no image of the epoch is repeated or left out"
        return "from the next step on, which is then no longer the step that the earlier run would have taken"


def under(key: str, beginnings: Sequence[str]) -> bool:
    return key.startswith(tuple(beginnings))


def changes(recorded: Mapping[str, Any], cfg: DictConfig) -> list[Change]:
    """What differs between the settings of a run's checkpoint and `cfg`, except what is `UNSEEN`.

    Args:
        recorded: `config`, and `started_in` where it is known.
        cfg: the settings of a run to be started here.
    """
    before = own_paths(flatten(recorded["config"], recorded.get("started_in", os.getcwd())))
    after = own_paths(flatten(plain(cfg), os.getcwd()))
    for key in after.keys() - before.keys():  # an option that there was not yet
        before[key] = default_of(cfg, key)
    keys = [key for key in sorted(before.keys() | after.keys()) if not under(key, (*UNSEEN, *TODAY))]
    return [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def own_paths(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the places in a run's own folder as such: they are others in each run, and mean the same."""
    run = str(values["run_dir"]) + os.sep
    return {k: f"RUN/{v[len(run) :]}" if isinstance(v, str) and v.startswith(run) else v for k, v in values.items()}


def default_of(cfg: DictConfig, key: str) -> Any:
    """What a class takes where the option that `key` ends with is not given; None if it has no such option."""
    group, _, name = key.rpartition(".")
    target = OmegaConf.select(cfg, f"{group}._target_") if group else None
    if not isinstance(target, str) or not target.startswith(f"{__package__}."):
        return None
    parameter = inspect.signature(get_class(target)).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


DERIVED = ("denoiser", "module", "hydra")
"""Parts of a configuration that only repeat others."""

TODAY = (*UNSEEN[:4], "overrides", "trainer.accelerator", *(f"{part}." for part in DERIVED))
"""Settings that a resumed run does not inherit."""


def flatten(config: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Every value by its dotted key; a list is one value. Paths are places (see `place`).

    Args:
        config: resolved, of plain containers.
        folder: the folder in which the command was run.
    """
    values: dict[str, Any] = {}

    def visit(key: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                visit(f"{key}.{name}" if key else str(name), inner)
        elif isinstance(value, str) and key.rpartition(".")[2] in PATHS:
            values[key] = place(value, folder)
        else:
            values[key] = value

    visit("", config)
    return values


def place(text: str, folder: str | Path) -> str:
    """A path as a place: absolute and without detours. An address, or a name that is no path, stays as it is."""
    if "://" in text or not (os.sep in text or (Path(folder) / text).exists()):
        return text
    return os.path.realpath(Path(folder) / text)


def restore_settings(
    recorded: Mapping[str, Any], asked: DictConfig, overrides: Sequence[str], only: Sequence[str] = ("",)
) -> DictConfig:
    """The settings of an earlier run, and what this command line changes in them.

    Both command lines are composed, the earlier one and the two together. Where these agree the recorded value stands,
    whatever this version's default is; where they differ, or the new command line names the key, the new one does.

    Args:
        recorded: the run's checkpoint: `config`, `overrides` (its command line) and `started_in` (its folder).
        asked: the configuration that this command line alone gives; its places for output are kept.
        overrides: this command line.
        only: beginnings of the keys that are inherited; by default all are.

    Raises:
        ValueError: if the command lines do not go together.
    """
    own = [override for override in overrides if not key_of(override).startswith("hydra.")]
    named = tuple(map(key_of, own))
    inherited = [
        override
        for override in recorded.get("overrides", [])
        if under(key := key_of(override), only) and not under(key, ("hydra.", *UNSEEN[:4]))
    ]
    earlier = [override for override in inherited if not any(supersedes(name, key_of(override)) for name in named)]
    here = f"run_dir={quote(str(asked.run_dir))}"
    try:
        base, now = composed([*inherited, here]), composed([*earlier, *own, here])
    except HydraException as error:
        raise ValueError(f"the run's own settings ({' '.join(inherited)}) do not go with these: {error}") from error
    old, new = (flatten(plain(cfg), os.getcwd()) for cfg in (base, now))
    settings = plain(now)
    folder, run_dir = recorded.get("started_in", os.getcwd()), str(recorded["config"]["run_dir"])
    for key, value in flatten(recorded["config"], folder).items():
        stands = key in old and key in new and old[key] == new[key] and not under(key, TODAY)
        if stands and under(key, only) and not any(supersedes(name, key) for name in named):
            within = isinstance(value, str) and (value + os.sep).startswith(run_dir + os.sep)
            put(settings, key, str(asked.run_dir) + value[len(run_dir) :] if within else value)
    derived = OmegaConf.to_container(now, resolve=False)
    assert isinstance(derived, dict)
    settings |= {name: derived[name] for name in DERIVED if name in derived} | {"output_root": asked.output_root}
    return OmegaConf.create({**settings, "overrides": [*earlier, *own]}, flags={"struct": True})


def supersedes(name: str, key: str) -> bool:
    """Whether a setting of `name` leaves nothing of an earlier one of `key`: it is the same, or one is in the other.

    A choice of a group, whose key has no dot, survives a setting within it.
    """
    return key == name or key.startswith(f"{name}.") or ("." in key and name.startswith(f"{key}."))


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0].lstrip("/")


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key, which is there."""
    *path, name = key.split(".")
    for part in path:
        settings = settings[part]
    settings[name] = value


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration, of plain containers; what names Hydra's own state is left out."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def composed(overrides: list[str]) -> DictConfig:
    """conf/train.yaml with overrides, found where the running command finds it."""
    if GlobalHydra.instance().is_initialized():
        return compose("train", overrides)
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("train", overrides)
