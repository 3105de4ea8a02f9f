"""What the documents tell to type is accepted."""

import re
import tomllib
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

from diffusion_lit.command_line import help as help_texts
from diffusion_lit.command_line.catalogue import COMMANDS, as_list, chosen_settings, groups_of, members
from diffusion_lit.command_line.completion import SCRIPTS
from diffusion_lit.command_line.composition import check_choices
from diffusion_lit.command_line.shell import read_arguments
from diffusion_lit.command_line.slips import choices_in, refuse_slips
from tests.command_line.test_slips import answer
from tests.documents import COMMAND, DOCUMENTS, PAGES, command_lines, commands_in, translations
from tests.launch import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARSER = OverridesParser.create()
OTHER_PROGRAMS = ("tensorboard --logdir", "wandb ", "source .venv/bin/activate", "cd ", "git clone ", "ls ")
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


NEEDED = {
    "data.r": "data=image_folder",
    "data.name": "data=hugging_face",
    "schedule.rho": "schedule=edm",
    "sampler.churn": "sampler=heun",
    "augmentation.p": "augmentation=edm",
    "weighting.gamma": "weighting=min_snr",
    "logger.wandb": "logger=[csv,wandb]",
}
"""Beginnings of settings that a table has alone, and what they are settings of."""


def for_one_run(argument: str) -> str:
    """An argument with the first value of a sweep; N is two processes."""
    [argument] = read_arguments([argument])
    override = PARSER.parse_override(argument)
    value = override.value()
    if isinstance(value, ChoiceSweep | RangeSweep | IntervalSweep):
        return f"{override.key_or_group}={value.list[0] if isinstance(value, ChoiceSweep) else value.start}"
    return re.sub(r"=[MN]$", "=2", argument)


def other_mistake(name: str, arguments: list[str]) -> str | None:
    """What is wrong with a command that is not for Hydra; None if it is."""
    if name == "evaluate" and arguments[0] == "compare":
        return "" if len(arguments) == 3 else "compares two files"
    if "--help" in arguments:
        return "" if help_texts.answer(name, arguments) else "there is no such help"
    if name == "completion":
        return "" if arguments[0] in SCRIPTS else f"there are {list(SCRIPTS)}"
    if "--config-dir" in arguments:
        return ""  # a configuration of the reader's own
    return None if name in COMMANDS else f"there are {COMMANDS}"


def settings_of(arguments: list[str]) -> list[str]:
    """The arguments that set something, but for Hydra's own; NAME is a recipe."""
    settings = [argument for argument in arguments if argument != "-m" and not argument.startswith("hydra")]
    return [setting.replace("experiment=NAME", "experiment=digits") for setting in settings]


def name_mistake(name: str, arguments: list[str]) -> str:
    """A group, member or key of a command's arguments that there is not. Nothing is composed: it takes no time."""
    try:
        refuse_slips(name, arguments)
        check_choices(name, read_arguments(arguments))
    except ValueError as error:
        return str(error)
    choices = choices_in(settings_of(arguments))
    keys, typed = chosen_settings(name, choices), {argument.partition("=")[0] for argument in arguments}
    added = [f"{key.partition('@')[2]}." for key in typed if "@" in key]
    for key, names in choices:
        group, at, _ = key.partition("@")
        unknown = [str(n) for n in as_list(names) if n and n not in members(group)]
        if group in groups_of(name) or at:
            if unknown:
                return f"{group} has no {unknown[0]}"
        elif not (
            f"+{key}" in typed or key.startswith(tuple(added)) or any(f"{k}.".startswith(f"{key}.") for k in keys)
        ):
            return f"{key} is not a setting of {name}"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_are_shown_name_what_there_is(document: str) -> None:
    said = {}
    for name, arguments in commands_in(document):
        other = other_mistake(name, arguments)
        said[f"{name} {' '.join(arguments)}"] = name_mistake(name, arguments) if other is None else other
    assert {command: message for command, message in said.items() if message} == {}


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_are_shown_compose(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, composed and checked as they are when they are typed, in a folder that has none of the files they name."""
    monkeypatch.chdir(tmp_path)
    said = {
        f"{name} {' '.join(arguments)}": answer(name, *map(for_one_run, settings_of(arguments)))
        for name, arguments in commands_in(document)
        if other_mistake(name, arguments) is None
    }
    assert {command: message for command, message in said.items() if message} == {}


def test_what_a_flag_is_translated_to_is_a_setting() -> None:
    found = translations("docs/coming_from.md")
    assert len(found) > 60
    for words in found:
        needed = [choice for key, choice in NEEDED.items() if any(word.startswith(key) for word in words)]
        arguments = [*(c for c in needed if c not in words), *words]
        messages = [name_mistake(name, arguments) for name in ("train", "sample", "evaluate", "prepare", "export")]
        assert "" in messages, (words, messages)


def test_the_documents_have_commands() -> None:
    commands = [command for document in DOCUMENTS for command in commands_in(document)]
    assert {name for name, _ in commands} >= set(COMMANDS) and len(commands) > 40


@pytest.mark.parametrize("document", PAGES)
def test_every_line_that_is_to_be_typed_is_known(document: str) -> None:
    """One of our commands, a target of the Makefile, an extra, a file that is there, or a program of others."""
    for line in command_lines(document):
        words = re.sub(r"^PYTHONPATH=\S+ ", "", line).split()
        if words[0] == "make":
            assert len(words) == 1 or words[1] in TARGETS, line
        elif words[:2] == ["pip", "install"]:
            extras = re.findall(r"diffusion-lit\[([\w,]+)\]", line)
            assert {e for group in extras for e in group.split(",")} <= set(PROJECT["optional-dependencies"]), line
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line
        elif not COMMAND.search(line) and line != "diffusion-lit":
            assert line.startswith(OTHER_PROGRAMS), line
