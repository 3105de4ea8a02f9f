"""The settings of a run that is resumed: its own, and what the new command line changes in them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import is_own
from diffusion_lit.command_line.composition import composed
from diffusion_lit.command_line.shell import key_of, quote
from diffusion_lit.derived import DERIVED, leaves
from diffusion_lit.run.settings import PLACES, RUN_DIR, TODAY, default_of, flatten, plain_settings, under
from diffusion_lit.trust.plain import read_as
from diffusion_lit.trust.recorded import check_config

__all__ = ["INHERITED", "restore_settings"]

PACKAGES = {"strategy": "trainer.strategy"}
"""Groups that set something of another name (`# @package` in conf)."""
INHERITED = ("model", "schedule", "parameterization")
"""What a run that begins with another's weights takes over of its settings."""
LIGHTNING = "lightning.pytorch.loggers."
FORMER: dict[str, str | tuple[str, ...]] = {
    "lr_schedule": "torch.",
    "logger.csv._target_": "diffusion_lit.csv_logger.",
    "logger.tensorboard._target_": (LIGHTNING, "diffusion_lit.tensorboard_logger."),
    "logger.wandb._target_": (LIGHTNING, "diffusion_lit.wandb_logger."),
    "trainer.strategy._target_": "diffusion_lit.hybrid_shard.",
    "callback.step_checkpoint._target_": "lightning.pytorch.callbacks.",
}
"""Settings whose classes earlier versions recorded by names that begin so: a class alone, or a group with all in it."""


def restore_settings(
    recorded: Mapping[str, Any], origin: str, asked: DictConfig, overrides: Sequence[str], only: Sequence[str] = ("",)
) -> tuple[DictConfig, list[str]]:
    """The settings of an earlier run with what this command line changes in them, and a command line for both.

    Both command lines are composed, the earlier one and the two together. Where these agree the recorded value stands,
    whatever this version's default is; where they differ, or the new command line names the key, the new one does. An
    option of the network that was not there yet has its class's default, which is what the network did. What comes from
    the file passes the gate of `check_config`.

    Args:
        recorded: the run's checkpoint: `config`, `overrides` (its command line) and `started_in` (its folder).
        origin: its file, for messages.
        asked: the configuration that this command line alone gives; its places for output are kept.
        overrides: this command line.
        only: beginnings of the keys that are inherited; by default all are.

    Raises:
        ValueError: if the command lines do not go together, or the file names what is not trusted.
    """
    own = [override for override in overrides if not under(key_of(override), ("hydra",))]
    named = [key_of(override) for override in own]
    named += [PACKAGES[name] for name in named if name in PACKAGES]
    inherited = [
        override
        for override in read_as(list[str], recorded.get("overrides", []), f"{origin}: overrides")
        if under(key := key_of(override), only) and not under(key, ("hydra", "allow", *PLACES))
    ]
    if only != ("",):  # values within a group stand as they are recorded, whatever has chosen its member
        inherited = [override for override in inherited if "." not in key_of(override)]
    earlier = [override for override in inherited if not any(supersedes(name, key_of(override)) for name in named)]
    if hidden := [override for override in earlier if "${" in override]:
        raise ValueError(f"{origin} was trained with {hidden[0]}, whose value only you can say: give {hidden[0]} again")
    here = f"run_dir={quote(str(asked.run_dir))}"
    try:
        base, now = composed([*inherited, here]), composed([*earlier, *own, here])
        told = base if earlier == inherited else composed([*earlier, here])
    except MissingConfigException as error:
        raise ValueError(
            f"{origin} was trained with {error.missing_cfg_file}, which conf/ does not have: give the folder of "
            "configurations that the run had, --config-dir=FOLDER (config_dir=FOLDER in Python)"
        ) from error
    except HydraException as error:
        raise ValueError(f"the run's own settings ({' '.join(inherited)}) do not go with these: {error}") from error
    allow = list(asked.allow)
    before, settings = plain_settings(base), plain_settings(now)
    typed = before if told is base else plain_settings(told)
    check_config({k: v for k, v in typed.items() if k not in DERIVED}, origin, allow)
    old, new = (flatten(cfg, os.getcwd()) for cfg in (before, settings))
    places = flatten(recorded["config"], recorded.get("started_in", os.getcwd()))
    stands = {
        key: value
        for key, value in leaves(recorded["config"]).items()
        if key in old
        and key in new
        and old[key] == new[key]
        and under(key, only)
        and not under(key, TODAY)
        and not any(supersedes(name, key) for name in [*named, *renewed(recorded["config"])])
    }
    was, is_now = leaves(recorded["config"]), leaves(settings)
    parts = {
        name: recorded["config"][name]
        for name in INHERITED
        if under(name, only)
        and name not in named
        and f"{name}._target_" in was
        and (
            was[f"{name}._target_"] != is_now.get(f"{name}._target_")
            or any(under(key, (f"{name}.",)) and key not in is_now for key in was)
        )
    }
    check_config(nested(stands | {"run_dir": recorded["config"].get("run_dir")}) | parts, origin, allow)
    for key in stands:
        value = places[key]
        within = isinstance(value, str) and value.startswith(RUN_DIR)
        put(settings, key, f"{asked.run_dir}{value[len(RUN_DIR) :]}" if within else value)
    for key, value in unwritten(recorded["config"], now).items():
        if under(key, only) and old.get(key) == new.get(key) and not any(supersedes(name, key) for name in named):
            put(settings, key, value)
    for name, part in parts.items():  # not by this command line: by that of a run before, or another project
        told_anew = {key: value for key, value in leaves(settings).items() if under(key, (name,)) and key in named}
        settings[name] = dict(part)
        for key, value in told_anew.items():
            put(settings, key, value)
    derived = OmegaConf.to_container(now, resolve=False)
    assert isinstance(derived, dict)
    settings |= {name: derived[name] for name in DERIVED if name in derived} | {"output_root": asked.output_root}
    return OmegaConf.create(settings, flags={"struct": True}), [*earlier, *own]


def renewed(recorded: Mapping[str, Any]) -> list[str]:
    """Settings that the run had under a former name: today's stand."""
    flat = leaves(recorded)
    targets = {key: flat.get(key if key.endswith("_target_") else f"{key}._target_") for key in FORMER}
    return [key for key, target in targets.items() if str(target).startswith(FORMER[key])]


def unwritten(recorded: Mapping[str, Any], now: DictConfig) -> dict[str, Any]:
    """Options that the network's class did not have yet when a run was recorded, by key, and their defaults."""
    before, target = recorded.get("model", {}), str(now.model.get("_target_"))
    if before.get("_target_") != target or not is_own(target):
        return {}
    return {f"model.{name}": default_of(now, f"model.{name}") for name in now.model if name not in before}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        part = tree
        for step in path:
            part = part.setdefault(step, {})
        part[name] = value
    return tree


def supersedes(name: str, key: str) -> bool:
    """Whether a setting of `name` leaves nothing of an earlier one of `key`: it is the same, or one is in the other.

    A choice of a group, whose key has no dot, survives a setting within it.
    """
    return key == name or key.startswith(f"{name}.") or ("." in key and name.startswith(f"{key}."))


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key, which is there."""
    *path, name = key.split(".")
    for part in path:
        settings = settings[part]
    settings[name] = value
