"""Every command that the documentation shows is one that can be typed: it composes, as the command itself would."""

import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command import CONFIG_FOLDER, check_choices, choose_none, refuse_unknown_keys
from diffusion_lit.shell import read_arguments
from tests.launch import ROOT

COMMANDS = ("train", "sample", "evaluate", "prepare", "inspect", "plot")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((CONFIG_FOLDER / "experiment").glob("*.yaml"))
OTHERS = ("git", "cd", "source", "pip", "wandb", "tensorboard", "#SBATCH", "#!/bin/bash")
PARSER = OverridesParser.create()
WIDE = ("experiment", "sweep")
"""Groups that set more than what has their name."""
NEEDED = {
    "data.r": "data=image_folder",
    "data.name": "data=hugging_face",
    "schedule.rho": "schedule=edm",
    "sampler.churn": "sampler=heun",
    "augmentation.p": "augmentation=edm",
    "weighting.gamma": "weighting=min_snr",
    "logger.wandb": "logger=[csv,wandb]",
}
"""Beginnings of settings, and what has them."""
FLAGS = {"-m", "--multirun", "--help", "--cfg", "job", "--info"}


def shown_lines(text: str) -> Iterator[str]:
    """The lines of blocks for a shell, continued ones joined."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def shown_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of this project anywhere in a text, in blocks, sentences and comments: name and arguments."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"-m diffusion_lit\.(\w+(?: [^`\n|]*)?)", text):
        name, *arguments = shlex.split(line.rstrip(" .:"), comments=True)
        yield name, [argument.replace("experiment=NAME", "experiment=digits") for argument in arguments]


@cache
def chosen(name: str, *groups: str) -> DictConfig:
    """A command's configuration with choices of groups."""
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose(name, list(groups))


@cache
def member(group: str, name: str) -> DictConfig:
    """A file of a group with those that it is based on, as Hydra puts them together."""
    own = OmegaConf.load(CONFIG_FOLDER / group / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    return OmegaConf.merge(*(member(group, base) for base in own.pop("defaults", [])), own)  # type: ignore[return-value]


def configured(name: str, groups: list[Override]) -> DictConfig:
    """A command's configuration with choices of groups. Hydra composes it anew only for those that reach further."""
    far = [o for o in groups if o.key_or_group in WIDE or o.key_or_group.startswith("hydra") or o.package is not None]
    cfg = deepcopy(chosen(name, *(o.input_line for o in far if o.input_line is not None)))
    for o in groups:
        if o not in far:
            names = o.value() if isinstance(o.value(), list) else [o.value()]
            parts = [member(o.key_or_group, str(choice)) for choice in names]
            if o.key_or_group == "strategy":
                cfg.trainer = OmegaConf.merge(cfg.trainer, *parts)
            else:
                cfg[o.key_or_group] = OmegaConf.merge(*parts)
    return cfg


def one_job(override: Override) -> str:
    """Of what is swept, the first value."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return override.input_line
    value = override.value()
    first = str(value.start) if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))
    return f"{override.get_key_element()}={first}"


def composes(name: str, arguments: list[str]) -> None:
    """What the command does before its work: reads the arguments, composes, refuses keys that nothing reads."""
    overrides = choose_none(read_arguments(arguments))
    check_choices(overrides)
    parsed = PARSER.parse_overrides(
        [one_job(o) for o in PARSER.parse_overrides([o for o in overrides if o not in FLAGS])]
    )
    groups = [o for o in parsed if (CONFIG_FOLDER / o.key_or_group).is_dir() or o.key_or_group.startswith("hydra")]
    cfg = configured(name, groups)
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o not in groups], cfg)
    known(name, *cfg)


@cache
def known(name: str, *keys: str) -> None:
    refuse_unknown_keys(OmegaConf.create(dict.fromkeys(keys)), name)


@pytest.mark.parametrize("path", [*DOCUMENTS, *RECIPES], ids=lambda path: path.stem)
def test_every_shown_command_composes(path: Path) -> None:
    text = path.read_text()
    if path in RECIPES:
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    for name, arguments in shown_commands(text):
        if arguments[:1] == ["compare"] or "--config-dir" in arguments:
            continue  # not Hydra's; a configuration of the reader's own
        try:
            composes(name, arguments)
        except Exception as error:
            raise AssertionError(f"{path.name}: {name} {' '.join(arguments)}: {error}") from error


def test_shown_commands_are_found() -> None:
    counts = {path.name: len(list(shown_commands(path.read_text()))) for path in DOCUMENTS}
    assert counts["README.md"] > 30 and counts["start.md"] > 10 and sum(counts.values()) > 70, counts
    with pytest.raises(Exception, match="learning_rate"):
        composes("train", ["optimizer.learning_rate=1"])
    with pytest.raises(ValueError, match="gone"):
        composes("evaluate", ["metrics=[fid,gone]"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_line_for_a_shell_is_known(path: Path) -> None:
    """This project's commands, make's targets that exist, scripts that exist, or one of a few tools."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in shown_lines(path.read_text()):
        if not line.strip() or re.search(r"-m diffusion_lit\.(train|sample|evaluate|prepare|inspect|plot)\b", line):
            continue
        first, *rest = shlex.split(line)
        if first == "make":
            assert rest[0] in targets, line
        elif first == "python" and rest[0].endswith(".py"):
            assert (ROOT / rest[0]).is_file(), line
        else:
            assert first in OTHERS, line


def translated() -> Iterator[tuple[str, list[str]]]:
    """What the tables of docs/coming_from.md say to type here: command and settings, what these need chosen first."""
    for row in (ROOT / "docs" / "coming_from.md").read_text().splitlines():
        if not row.startswith("| "):
            continue
        for code in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1]):
            name, *words = shlex.split(code) if code.split()[0] in COMMANDS else ["train", *shlex.split(code)]
            if not words or "=" not in words[0] or words[0].endswith("=") or words[0].startswith("--"):
                continue  # a word of the sentence, a group that is named, the other project's flag
            name = "sample" if words[0].startswith("labels=") else name
            needed = [
                choice for key, choice in NEEDED.items() if name == "train" and any(w.startswith(key) for w in words)
            ]
            words = [word.replace("experiment=NAME", "experiment=digits") for word in words]
            yield name, [*(choice for choice in needed if choice not in words), *words]


def test_what_a_table_translates_to_can_be_typed() -> None:
    found = list(translated())
    assert len(found) > 70
    for name, words in found:
        try:
            composes(name, words)
        except Exception as error:
            raise AssertionError(f"docs/coming_from.md: {name} {' '.join(words)}: {error}") from error
