"""Settings put together by Hydra, and what it says when they cannot be, in this project's words and with a remedy."""

import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import run_and_report as hydra_report
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from diffusion_lit.command_line.catalogue import CONFIG_FOLDER, groups_of, members
from diffusion_lit.command_line.shell import is_multirun
from diffusion_lit.command_line.slips import choices_in
from diffusion_lit.command_line.suggestion import meant_member, unknown_key
from diffusion_lit.files import behind

__all__ = ["check_choices", "composed", "explain_composition", "report"]

PARSER = OverridesParser.create()
ELSEWHERE = re.compile(r"-(cd|cp|cn)|--config-|hydra\.searchpath=")
"""What makes Hydra read other folders than conf/."""


def composed(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """conf/COMMAND.yaml with overrides, found where the running command finds it, and so are the user's own groups."""
    given = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    overrides = [*overrides, *(override for override in given if override.startswith("hydra.searchpath="))]
    if GlobalHydra.instance().is_initialized():
        return compose(command, overrides)
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose(command, overrides)


def check_choices(command: str, arguments: Sequence[str]) -> None:
    """Check the members of lists and sweeps, of which Hydra names neither the group nor what there is, and that `-m`
    stands before a sweep.

    Raises:
        ValueError: naming the member, and what there is.
    """
    elsewhere = any(ELSEWHERE.match(argument) for argument in arguments)
    for argument in arguments:
        group, _, value = argument.partition("=")
        if argument.startswith("-") or not re.search(r"[\[,]", value):
            continue
        try:
            override = PARSER.parse_override(argument)
        except HydraException:  # which says so itself
            continue
        swept = override.is_sweep_override()
        names = [value.strip() for value in value.split(",")] if swept else override.value()
        chosen = names if group in groups_of(command) and isinstance(names, list) and "(" not in value else []
        if not elsewhere and (unknown := [str(name) for name in chosen if name not in members(group)]):
            raise ValueError(f"{group} has no {unknown[0]}: {meant_member(group, unknown[0])}")
        if swept and "(" not in value and not is_multirun(arguments):
            listed = shlex.quote(f"{group}=[{value}]")
            raise ValueError(f"{argument} are several runs: put -m before it; a list for one run is {listed}")


def explain_composition(error: BaseException, command: str, arguments: Sequence[str]) -> str | None:
    """The message for the user, if Hydra could not compose what was typed; None for any other error."""
    text = str(error)
    if isinstance(error, ValueError):
        return NULL_GROUP if "Config group override must be a string or a list" in text else None
    if not isinstance(error, ConfigCompositionException | OverrideParseException):
        return None
    choices = choices_in(arguments)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher":
            return f"hydra/launcher={name} is not there: joblib and submitit need pip install 'diffusion-lit[sweep]'"
        if members(group):
            return f"{group} has no {name}: {meant_member(group, name)}"
    if found := re.search(r"Could not (?:override|delete)[^']*'([^']+)'", text):
        key = found[1].partition("=")[0]
        value = next((a.partition("=")[2] for a in arguments if a.lstrip("+~").partition("=")[0] == key), None)
        return unknown_key(command, key, value, choices)
    if found := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        typed = next((a for a in arguments if a.lstrip("+").partition("=")[0] == found[1]), f"+{found[1]}")
        return f"{typed}: {found[1]} is there already, and needs no +: {shlex.quote(typed.lstrip('+'))}"
    if found := re.match(r"Multiple values for ([\w/]+)", text):
        typed = next((a for a in arguments if a.startswith(f"+{found[1]}=")), f"+{found[1]}=NAME")
        return f"{typed}: a member of {found[1]} is chosen already; without the + this one takes its place: {typed[1:]}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}: {str(error.__cause__).partition(chr(10))[0]}"
    return f"{text.strip()}\nSee python -m diffusion_lit.{command} --help"


def report(name: str, func: Callable[[], Any]) -> Any:
    """In place of Hydra's own `run_and_report`: what cannot be composed is said in this project's words."""
    try:
        return func()
    except Exception as error:
        said = explain_composition(error, name, sys.argv[1:]) or explain_folder(error, name)
        if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            return hydra_report(functools.partial(reraise, error))
        print(f"\nerror: {said}", file=sys.stderr)
        sys.exit(1)


def explain_folder(error: BaseException, command: str) -> str | None:
    """The message for the user, if the folder that Hydra makes for a command's output cannot be made, or written to."""
    setting = "output_root=FOLDER or hydra.run.dir=FOLDER" if command == "train" else "out=FOLDER"
    if isinstance(error, OmegaConfBaseException) and error.full_key in ("hydra.run.dir", "hydra.sweep.dir"):
        return f"what is written has no folder ({str(error).partition(chr(10))[0]}): give one, {setting}"
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    made = not {"mkdir", "makedirs"}.isdisjoint(frames[-2:])
    refused = behind(error, lambda hidden: isinstance(hidden, OSError))
    if isinstance(refused, OSError) and not made and not {"_save_config", "configure_log"}.isdisjoint(frames):
        return (
            f"a command's record cannot be written ({refused.strerror}): make room, or choose another folder, {setting}"
        )
    if not (isinstance(error, OSError) and error.filename and made):
        return None
    return f"the folder {error.filename} cannot be made ({error.strerror}): choose another, {setting}"


def reraise(error: Exception) -> None:
    raise error


NULL_GROUP = "a group cannot be null: choose one of its members, or leave it out with ~GROUP"
