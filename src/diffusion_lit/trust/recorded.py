"""A run's whole configuration, as its checkpoint or its folder has it: what it may name, and where it may write.

Beside classes of this project there are those of the platform: exactly those that `conf/` names, each in its group.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import OWN, is_own
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.command_line.shell import OWN_PACKAGES
from diffusion_lit.trust.destination import check_destinations
from diffusion_lit.trust.gate import Gate
from diffusion_lit.trust.plain import plain, printable

__all__ = ["check_config", "own_packages", "remember_own_packages", "trusted_config"]

KINDS = {
    "augmentation": "diffusion_lit.augmentation.Augmentation",
    "execution": "diffusion_lit.execution.Execution",
    "callback": "lightning.pytorch.Callback",
    "data": "diffusion_lit.data.ImageDataModule",
    "denoiser": "diffusion_lit.denoiser.Denoiser",
    "density": "diffusion_lit.density.Density",
    "feature": "diffusion_lit.feature.FeatureExtractor",
    "logger": "lightning.pytorch.loggers.Logger",
    "loss": "diffusion_lit.loss.Loss",
    "lr_schedule": "diffusion_lit.lr_schedule.LRSchedule",
    "model": "diffusion_lit.model.Network",
    "module": "diffusion_lit.module.DiffusionModule",
    "optimizer": "torch.optim.Optimizer",
    "parameterization": "diffusion_lit.parameterization.Parameterization",
    "sampler": "diffusion_lit.sampler.Sampler",
    "schedule": "diffusion_lit.schedule.Schedule",
    "space": "diffusion_lit.space.Space",
    "strategy": "lightning.pytorch.strategies.Strategy",
    "trainer": "lightning.pytorch.Trainer",
    "weighting": "diffusion_lit.weighting.Weighting",
}
"""What belongs into each group."""
ADDRESS = re.compile(r"((https?|s3|gs|azure|r2|hf|local|file):(//)?[\w.-]*(:\d+)?)?[^:]*")
"""A path or URL, maybe with braces: webdataset runs what follows `pipe:`, also within a list or braces."""


def trusted_config(config: object, origin: str, allow: Sequence[str] = ()) -> DictConfig:
    """The settings of a run that a file has recorded, ready to train with. Raises what `check_config` raises."""
    return OmegaConf.create(check_config(config, origin, allow))


def check_config(config: object, origin: str, allow: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a run that a file has recorded, if they may pass; what is given anew should be left out of it.

    What a run writes must lie in its own `run_dir`, which the caller then replaces by that of the new run.

    Args:
        config: the settings, plain containers.
        origin: the file, for messages.
        allow: modules whose classes may be named beside this project's and the platform's.

    Raises:
        ValueError: if there is anything but plain values in it, it names a class that does not belong where it is, or
            it would write outside of its folder, send figures to another server or run a program; the message has the
            key and the remedy.
    """
    values = plain(config, origin)
    if type(values) is not dict:
        raise ValueError(f"{origin} has no settings in it")
    RunGate(origin, allow).descend(values, (), None)
    check_destinations(values, origin)
    check_addresses(values.get("data"), origin)
    return values


class RunGate(Gate):
    """The gate of a whole run: what a place takes is also known by its name."""

    def descend(self, value: object, path: tuple[str, ...], kind: type | None) -> None:
        place = place_of(path)
        if kind is None and isinstance(value, dict) and "_target_" in value and place in KINDS:
            kind = class_named(KINDS[place])
        super().descend(value, path, kind)

    def admit(self, target: object, kind: type, path: tuple[str, ...]) -> type:
        if isinstance(target, str) and target in platform().get(place_of(path), {}):
            return class_named(target)
        return super().admit(target, kind, path)

    def check_option(self, name: str, value: object, path: tuple[str, ...]) -> None:
        options = [own for named in platform().get(place_of(path), {}).values() for own in named]
        if (name, value) not in options:
            super().check_option(name, value, path)


def place_of(path: tuple[str, ...]) -> str:
    """The group whose classes belong at a place of a run's settings."""
    if len(path) == 2 and path[0] in ("callback", "logger"):
        return path[0]
    return {"network": "model", "extractor": "feature"}.get(path[-1], path[-1]) if path else ""


@cache
def platform() -> dict[str, dict[str, list[tuple[str, object]]]]:
    """The foreign classes that `conf/` names, by group; of each, Hydra's other keys and their values there."""
    found: dict[str, dict[str, list[tuple[str, object]]]] = {}
    for file in sorted(CONFIG_FOLDER.glob("*/*.yaml")):
        settings = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        assert isinstance(settings, dict)
        for node in (settings, *settings.values()):
            if isinstance(node, dict) and not is_own(node.get("_target_", OWN)):
                options = [(str(key), node[key]) for key in ("_partial_", "_convert_") if key in node]
                found.setdefault(file.parent.name, {})[node["_target_"]] = options
    return found


def own_packages(config: object) -> list[str]:
    """The packages, neither this project's nor the platform's, whose classes plain settings name: for `allow=`."""
    known = {name for named in platform().values() for name in named}
    found: dict[str, None] = {}

    def visit(value: object) -> None:
        if isinstance(value, dict):
            target = value.get("_target_")
            if isinstance(target, str) and target not in known and not is_own(target):
                found[target.partition(".")[0]] = None
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(part)

    visit(config)
    return list(found)


def remember_own_packages(cfg: DictConfig) -> None:
    """Let commands that are printed while a run of these settings is trained allow what its checkpoint will name."""
    OWN_PACKAGES[:] = dict.fromkeys([*cfg.allow, *own_packages(OmegaConf.to_container(cfg))])


def class_named(name: str) -> type:
    """A class that this project names, imported."""
    module, _, attribute = name.rpartition(".")
    cls: type = getattr(import_module(module), attribute)
    return cls


def check_addresses(data: object, origin: str) -> None:
    """Refuse addresses of data by which a program would be run.

    Raises:
        ValueError: if there is one; the message names the key.
    """
    for key in ("urls", "val_urls", "test_urls"):
        urls = data.get(key) if isinstance(data, dict) else None
        for url in urls if isinstance(urls, list) else [urls]:
            if url is not None and not (isinstance(url, str) and ADDRESS.fullmatch(url)):
                raise ValueError(
                    f"{origin}: data.{key} is {printable(url)}, by which a program could be run; if you trust it, give "
                    f"data.{key}= yourself"
                )
