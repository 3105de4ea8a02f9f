"""What the documents tell to type is accepted."""

import re
import tomllib
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

from diffusion_lit import help as help_texts
from diffusion_lit.catalogue import COMMANDS
from diffusion_lit.completion import SCRIPTS
from diffusion_lit.composition import check_choices
from tests.documents import COMMAND, DOCUMENTS, command_lines, commands_in
from tests.launch import ROOT
from tests.test_slips import answer

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARSER = OverridesParser.create()
OTHER_PROGRAMS = ("tensorboard --logdir", "wandb ", "source .venv/bin/activate", "cd ", "git clone ", "ls ")
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def for_one_run(argument: str) -> str:
    """An argument with the first value of a sweep; N is two processes, NAME a recipe."""
    override = PARSER.parse_override(argument)
    value = override.value()
    if isinstance(value, ChoiceSweep | RangeSweep | IntervalSweep):
        return f"{override.key_or_group}={value.list[0] if isinstance(value, ChoiceSweep) else value.start}"
    return re.sub(r"=[MN]$", "=2", argument).replace("experiment=NAME", "experiment=digits")


def mistake(name: str, arguments: list[str]) -> str:
    """What a command of a document says to its arguments, read, composed and checked as they are typed."""
    if name == "evaluate" and arguments[0] == "compare":
        return "" if len(arguments) == 3 else "compares two files"
    if "--help" in arguments:
        return "" if help_texts.answer(name, arguments) else "there is no such help"
    if "--config-dir" in arguments:
        return ""  # a configuration of the reader's own
    if name == "completion":
        return "" if arguments[0] in SCRIPTS else f"there are {list(SCRIPTS)}"
    if name not in COMMANDS:
        return f"there are {COMMANDS}"
    try:
        check_choices(name, arguments)
    except ValueError as error:
        return str(error)
    settings = [argument for argument in arguments if argument != "-m" and not argument.startswith("hydra")]
    return answer(name, *map(for_one_run, settings))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_are_shown_are_accepted(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has none of the files that they name."""
    monkeypatch.chdir(tmp_path)
    said = {f"{name} {' '.join(arguments)}": mistake(name, arguments) for name, arguments in commands_in(document)}
    assert {command: message for command, message in said.items() if message} == {}


def test_the_documents_have_commands() -> None:
    commands = [command for document in DOCUMENTS for command in commands_in(document)]
    assert {name for name, _ in commands} >= set(COMMANDS) and len(commands) > 40


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_line_that_is_to_be_typed_is_known(document: str) -> None:
    """One of our commands, a target of the Makefile, an extra, a file that is there, or a program of others."""
    for line in command_lines(document):
        words = line.split()
        if words[0] == "make":
            assert len(words) == 1 or words[1] in TARGETS, line
        elif words[:2] == ["pip", "install"]:
            extras = re.findall(r"diffusion-lit\[([\w,]+)\]", line)
            assert {e for group in extras for e in group.split(",")} <= set(PROJECT["optional-dependencies"]), line
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line
        elif not COMMAND.search(line) and line != "diffusion-lit":
            assert line.startswith(OTHER_PROGRAMS), line
