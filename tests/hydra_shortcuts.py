"""Hydra's answers, sooner: composing takes it longer than the training steps of most tests.

What it reads from conf/, it reads once; processes that are copies of this one have it read already.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import hydra._internal.utils
import omegaconf
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from omegaconf.base import Metadata
from omegaconf.grammar_parser import parse

from diffusion_lit import restore
from diffusion_lit.command import CONFIG_FOLDER

__all__ = ["composed", "install"]

PARSER = OverridesParser.create()
COMPOSED = restore.composed
READ_MODE = Hydra.get_mode
READ_FILE = ConfigRepository.load_config
FILES: dict[tuple[str, ...], Any] = {}


@cache
def chosen(command: str, *groups: str) -> DictConfig:
    """conf/COMMAND.yaml with choices of groups."""
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
    cfg = deepcopy(chosen(command, *(o.input_line for o in groups if o.input_line is not None)))
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o not in groups], cfg)
    return cfg


def read_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """What `hydra.mode` is: Hydra composes everything to learn that nothing sets it."""
    return READ_MODE(self, config_name, overrides) if "hydra.mode" in " ".join(overrides) else None


def read_file(self: ConfigRepository, config_path: str) -> Any:
    key = (config_path, *(source.path for source in self.sources))
    if key not in FILES:
        FILES[key] = READ_FILE(self, config_path)
    return deepcopy(FILES[key])  # Hydra writes into it


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
    Metadata.__deepcopy__ = copy_metadata  # type: ignore[attr-defined]
    for module in (omegaconf.base, omegaconf._utils):
        module.parse = cache(parse)  # type: ignore[attr-defined] # the same interpolations, again and again
    hydra._internal.utils.is_under_debugger = lambda: False  # which Hydra looks through the whole stack for
