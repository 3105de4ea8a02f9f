"""The commonest slips in what is typed after a command, answered before Hydra reads it: with what to type instead."""

import re
import shlex
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from diffusion_lit.command_line.catalogue import COMMANDS, PATHS, chosen_settings, groups_of, members
from diffusion_lit.command_line.suggestion import meant_key, similar

__all__ = ["choices_in", "options_and_settings", "refuse_slips"]

FLAGS = ("-m", "--multirun", "-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-i", "--info")
TAKING = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")
OTHERS = ("-sc", "--shell-completion", "--experimental-rerun")
"""Hydra's options: without a value, with one, and those that nobody needs here."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
KEY = re.compile(r"(\+\+?|~)?[\w/.@:$-]+", re.ASCII)
PLACES = {"train": "resume", "prepare": "source", "inspect": "data.root"}
"""Which setting a path is of that stands alone, where it is not `ckpt`."""
CLOSING = {"[": "]", "(": ")", "{": "}"}


def choices_in(arguments: Sequence[str]) -> list[tuple[str, object]]:
    """The members of groups that are chosen in a command's arguments."""
    pairs = (argument.lstrip("+").partition("=") for argument in arguments if "=" in argument)
    return [(key, [part.strip() for part in value.strip("[]").split(",")]) for key, _, value in pairs]


def refuse_slips(command: str, arguments: Sequence[str]) -> None:
    """Refuse arguments that are not options of Hydra's nor of the form KEY=VALUE.

    Raises:
        ValueError: saying what to type instead.
    """
    settings = options_and_settings(arguments)[1]
    for i in range(len(settings)):
        refuse_word(command, settings, i)


def options_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options, one with its value as OPTION=VALUE, and all else that was typed, each in its order."""
    options: list[str] = []
    settings: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        if not option_of(word, (*FLAGS, *TAKING, *OTHERS)):
            settings.append(word)
        elif words and (words[0] in INFO if word in ("-i", "--info") else option_of(word, TAKING) and "=" not in word):
            options.append(f"{word}={words.popleft()}")
        else:
            options.append(word)
    return options, settings


def option_of(word: str, options: Sequence[str]) -> bool:
    """Whether a word is one of Hydra's options, which may be shortened as long as nothing else begins so."""
    name = word.partition("=")[0]
    if name in options:
        return True
    whole = [
        option
        for option in (*FLAGS, *TAKING, *OTHERS)
        if name[:2] == "--" and len(name) > 2 and option.startswith(name)
    ]
    return len(whole) == 1 and whole[0] in options


def refuse_word(command: str, words: list[str], i: int) -> None:
    """Refuse the word i of a command line if it is not KEY=VALUE."""
    word, after = words[i], words[i + 1 : i + 2]
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        raise ValueError(dashed(command, words, i))
    if word == "=" or (word.startswith("=") and i > 0):
        setting = f"{words[i - 1]}={value or ''.join(after)}"
        raise ValueError(f"KEY=VALUE is one word, without spaces: {shlex.quote(setting)}")
    if not equals and not word.startswith("~"):
        raise ValueError(alone(command, words, i))
    if not value and equals and after and "=" not in after[0] and not after[0].startswith(("-", "~")):
        raise ValueError(f"KEY=VALUE is one word, without spaces: {shlex.quote(word + after[0])}")
    if value.startswith("=") and not value.startswith("=="):
        raise ValueError(f"{word} has one = too many: {shlex.quote(f'{key}{value}')}")
    if re.fullmatch(r"[A-Z][A-Z0-9_]+", key):
        raise ValueError(f"{key} is not a setting; a variable of the environment comes first: {word} python -m ...")
    if not KEY.fullmatch(key):
        meant = meant_key(command, re.sub(r"\W+", "_", key), choices_in(words))
        hint = f"did you mean {meant[0]}?" if meant else f"see python -m diffusion_lit.{command} --help"
        raise ValueError(f"{key!r} is not the name of a setting: {hint}")
    if key.rpartition(".")[2].lstrip("+") in PATHS:
        return  # any text
    if problem := unbalanced(value):
        rest = words[i + 1 :]
        end = next((j for j, part in enumerate(rest) if "=" in part), len(rest))
        if rest[:end] and not unbalanced("".join((value, *rest[:end]))):
            whole = f"{key}={''.join((value, *rest[:end]))}"
            raise ValueError(f"a list is one word, without spaces or within quotes: {shlex.quote(whole)}")
        raise ValueError(f"{word}: {problem}")
    if value.startswith("(") and value.endswith(")"):
        raise ValueError(f"a list has square brackets: {shlex.quote(f'{key}=[{value[1:-1]}]')}")
    if value == "None" and not key.startswith("labels"):
        raise ValueError(f"{word}: nothing is called null here: {key}=null")


def dashed(command: str, words: list[str], i: int) -> str:
    """The message for an option that Hydra does not have: settings have no dashes."""
    name, equals, value = words[i].lstrip("-").partition("=")
    after = words[i + 1 : i + 2]
    if not equals and after and "=" not in after[0] and not (after[0].startswith("-") and not numeric(after[0])):
        value = after[0]
    key = name.replace("-", "_")
    if name in ("config", "conf"):
        return f"{words[i]}: for a file of your own give its folder and its name: --config-dir FOLDER experiment=NAME"
    known = {*chosen_settings(command, choices_in(words)), *groups_of(command)}
    meant = [key] if key in known else meant_key(command, key, choices_in(words))
    if not meant:
        see = f"see python -m diffusion_lit.{command} --help"
        return f"{words[i]} is not an option, and settings are KEY=VALUE, without dashes: {see}"
    typed = shlex.quote(f"{meant[0]}={value}") if value else f"{meant[0]}=VALUE"
    return f"{words[i]} is not an option: settings have no dashes, type {typed}"


def alone(command: str, words: list[str], i: int) -> str:
    """The message for a word without `=`."""
    word, after = words[i], words[i + 1 : i + 2]
    settings = chosen_settings(command, choices_in(words))
    follows = after[0] if after and "=" not in after[0] and not after[0].startswith("-") else None
    if word in settings or word in groups_of(command):
        if follows:
            return f"KEY=VALUE is one word: {shlex.quote(f'{word}={follows}')}"
        example = f", one of {', '.join(members(word))}" if word in groups_of(command) else ""
        return f"{word} needs a value: {word}=VALUE{example}"
    if ":" in word and word.partition(":")[0] in {*settings, *groups_of(command)}:
        return f"{word} is not KEY=VALUE: {shlex.quote(word.replace(':', '=', 1))}"
    if word in ("help", "?"):
        return f"help is an option: python -m diffusion_lit.{command} --help"
    group, _, name = word.rpartition(".") if "." in word else word.rpartition("/")
    if group in groups_of(command) and name in members(group):
        return f"{word} is not KEY=VALUE: {group}={name}"
    if groups := [group for group in groups_of(command) if word in members(group)]:
        return f"{word} is not KEY=VALUE: {' or '.join(f'{group}={word}' for group in groups)}"
    if word in COMMANDS:
        return f"{word} is a command of its own: python -m diffusion_lit.{word}"
    place = PLACES.get(command, "ckpt")
    unlike = command != "train" and not similar(word, settings) and f"{place}=" not in " ".join(words)
    if unlike or Path(word).exists() or "/" in word or "\\" in word or word.endswith((".ckpt", ".pt")):
        return f"{word} is not KEY=VALUE: if it is a path, type {shlex.quote(f'{place}={word}')}"
    if meant := meant_key(command, word):
        return f"{word} is not KEY=VALUE: did you mean {meant[0]}={follows or 'VALUE'}?"
    return f"{word} is not KEY=VALUE: see python -m diffusion_lit.{command} --help"


def numeric(text: str) -> bool:
    return bool(re.fullmatch(r"-?[\d.]+(e-?\d+)?", text, re.IGNORECASE))


def unbalanced(text: str) -> str | None:
    """What is wrong with the brackets of a value; None if each is closed."""
    open_ones: list[str] = []
    if text.startswith(("'", '"')):
        mark = text[0]
        return None if len(text) > 1 and text.endswith(mark) else f"a quote {mark} is not closed"
    for mark in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        if mark in CLOSING:
            open_ones.append(mark)
        elif mark in CLOSING.values() and (not open_ones or CLOSING[open_ones.pop()] != mark):
            return f"a {mark} closes what nothing opened"
    return f"a {open_ones[-1]} is not closed with {CLOSING[open_ones[-1]]}" if open_ones else None
