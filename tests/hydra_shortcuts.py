"""Hydra's answers, sooner: composing takes it longer than the training steps of most tests.

What it reads from conf/, and what a choice of groups comes to, it finds out once; processes that are copies of this one
know it already.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import hydra._internal.config_loader_impl
import hydra._internal.utils
import omegaconf
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from omegaconf.base import Metadata
from omegaconf.grammar_parser import parse

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.run import restore

__all__ = ["composed", "install"]

PARSER = OverridesParser.create()
COMPOSED = restore.composed
READ_MODE = Hydra.get_mode
READ_FILE = ConfigRepository.load_config
LIST = create_defaults_list
CHOICES = defaults_list._create_interpolation_map
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
FILES: dict[tuple[str, ...], Any] = {}
LISTS: dict[tuple[Any, ...], DefaultsList] = {}
MERGED: dict[tuple[Any, ...], DictConfig] = {}


def places() -> tuple[str, ...]:
    """Where the running command finds its groups, the user's own among them."""
    return tuple(s.path for s in HydraConfig.get().runtime.config_sources) if HydraConfig.initialized() else ()


@cache
def chosen(command: str, places: tuple[str, ...], *groups: str) -> DictConfig:
    """conf/COMMAND.yaml with choices of groups, which mean something else in other places."""
    if command == "train":
        return COMPOSED(list(groups))
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose(command, list(groups))


@cache
def parsed_once(override: str) -> Override:
    return PARSER.parse_overrides([override])[0]


def composed(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """conf/COMMAND.yaml with overrides, as Hydra composes it: first the groups, then all else by its own code."""
    parsed = [parsed_once(override) for override in overrides]
    groups = [o for o in parsed if (CONFIG_FOLDER / o.key_or_group).is_dir() or o.package is not None]
    cfg = deepcopy(chosen(command, places(), *(o.input_line for o in groups if o.input_line is not None)))
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o not in groups], cfg)
    return cfg


def read_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """What `hydra.mode` is: Hydra composes everything to learn that nothing sets it."""
    return READ_MODE(self, config_name, overrides) if "hydra.mode" in " ".join(overrides) else None


def read_file(self: ConfigRepository, config_path: str) -> Any:
    key = (config_path, *sources(self))
    if key not in FILES:
        FILES[key] = READ_FILE(self, config_path)
    return deepcopy(FILES[key])  # Hydra writes into it


def listed(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **options: bool
) -> DefaultsList:
    """What the choices of groups, and they alone, come to: the files to read."""
    chosen, others = [], []
    for override in overrides_list:
        choice = repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
        (chosen if choice else others).append(override)
    key = (sources(repo), config_name, *(override.input_line for override in chosen), *options.items())
    if key not in LISTS:
        LISTS[key] = LIST(repo=repo, config_name=config_name, overrides_list=chosen, **options)
    return replace(LISTS[key], config_overrides=[other for other in others if not other.is_sweep_override()])


def merged(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
    key = (sources(repo), *(tuple(vars(default).items()) for default in defaults))
    if key not in MERGED:
        MERGED[key] = MERGE(self, defaults, repo)
    return deepcopy(MERGED[key])


def choices(overrides: Overrides, defaults: list[InputDefault], self_added: bool) -> DictConfig | None:
    """What interpolations in a list of defaults may name: made only where there is one."""
    needed = any(default.is_interpolation() for default in defaults)
    return CHOICES(overrides, defaults, self_added) if needed else None


def sources(repo: IConfigRepository) -> tuple[str, ...]:
    return tuple(source.path for source in repo.get_sources())


def copy_metadata(self: Metadata, memo: dict[int, Any]) -> Metadata:
    """A deep copy, of what there is to copy: there is one of it in each of thousands of nodes."""
    copied = object.__new__(type(self))
    copied.__dict__.update(self.__dict__)
    for name in ("flags", "resolver_cache"):
        if (value := getattr(self, name)) is not None:
            setattr(copied, name, deepcopy(value, memo) if value else value.copy())
    return copied


def install() -> None:
    """Put the shortcuts in Hydra's place, for this process and its copies."""
    restore.composed = composed
    Hydra.get_mode = read_mode  # type: ignore[method-assign]
    ConfigRepository.load_config = read_file  # type: ignore[method-assign]
    hydra._internal.config_loader_impl.create_defaults_list = listed
    defaults_list._create_interpolation_map = choices  # type: ignore[assignment]
    ConfigLoaderImpl._compose_config_from_defaults_list = merged  # type: ignore[method-assign]
    Metadata.__deepcopy__ = copy_metadata  # type: ignore[attr-defined]
    for module in (omegaconf.base, omegaconf._utils):
        module.parse = cache(parse)  # type: ignore[attr-defined] # the same interpolations, again and again
    hydra._internal.utils.is_under_debugger = lambda: False  # which Hydra looks through the whole stack for
