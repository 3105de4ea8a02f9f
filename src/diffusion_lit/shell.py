"""Between a shell and Hydra: paths are read as they are typed, and commands are printed so that they can be pasted."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

__all__ = ["PATHS", "command_line", "quote", "read_arguments"]

PATHS = {
    *("against", "autoencoder", "cache", "ckpt", "data_root", "default_root_dir", "dir", "dirpath", "evaluation"),
    *("filename", "folder", "guide", "latents", "name", "out", "output_root", "output_subdir", "reference", "resume"),
    *("root", "run", "run_dir", "samples", "save_dir", "source", "subdir", "test_urls", "training", "urls"),
    *("val_urls", "weights"),
}
"""Keys whose values are text, by the last part of their names: files, folders, addresses."""

QUOTED = r"""(?P<mark>['"])(?:\\.|(?!(?P=mark))[^\\])*(?P=mark)"""
PIECE = re.compile(rf"(?:^|,)\s*({QUOTED}(?=\s*(?:,|$))|[^,]*)", re.DOTALL)
PARSER = OverridesParser.create()


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command for Hydra, which then takes the value of a path to be the text that was typed.

    The name of a file or folder that exists is that name, whatever characters it has. Otherwise `null`, values within
    quotes, lists and interpolations `${...}` mean what they do in Hydra, a comma in a multirun separates jobs, and `~`
    is the home folder.

    Raises:
        ValueError: if Hydra cannot read the value of another key; the message has the quoting that it can read.
    """
    multirun = not {"-m", "--multirun"}.isdisjoint(arguments)
    return [
        read_argument(argument, multirun) if "=" in argument and not argument.startswith(("-", "~")) else argument
        for argument in arguments
    ]


def read_argument(argument: str, multirun: bool) -> str:
    key, _, value = argument.partition("=")
    if key.rpartition(".")[2].lstrip("+") in PATHS:
        return f"{key}={read_path(value, multirun)}"
    try:
        PARSER.parse_override(argument)
    except HydraException as error:
        remedy = shlex.quote(f"{key}={quote(value)}")
        raise ValueError(f"{argument} cannot be read as KEY=VALUE; if the value is text, type {remedy}") from error
    return argument


def read_path(text: str, multirun: bool = False) -> str:
    """What Hydra should be given for `text`, the value of a path."""
    if os.path.lexists(text):
        if "${" in text or text == "???":
            raise ValueError(f"{text} has another meaning in a configuration: rename the file, or link to it")
        return quote(text)
    if text.startswith("[") and text.endswith("]"):
        return f"[{','.join(map(read_path, pieces(text[1:-1])))}]"
    if multirun and re.fullmatch(r"\w+\(.*\)", text):  # one of Hydra's functions, such as choice(a,b)
        return text
    if multirun and len(values := pieces(text)) > 1:
        return ",".join(map(read_path, values))
    if text in ("", "null") or re.fullmatch(QUOTED, text, re.DOTALL):
        return text
    return quote(os.path.expanduser(text))


def pieces(text: str) -> list[str]:
    """What commas outside quotes separate."""
    return [piece[1].rstrip() for piece in PIECE.finditer(text)]


def quote(text: str, always: bool = False) -> str:
    """`text` so that Hydra reads this very text: within quotes where, as it is, Hydra would not, or `always`."""
    try:
        if not always and PARSER.parse_override(f"key={text}").value() == text:
            return text
    except HydraException:
        pass
    quoted: str = QuotedString(text, Quote.double).with_quotes()
    return quoted


def command_line(name: str, settings: Mapping[str, object]) -> str:
    """`python -m diffusion_lit.NAME KEY=VALUE ...`, to be pasted into a shell, in whatever folder; None is no value."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    given = [key if value is None else f"{key}={value}" for key, value in settings.items()]
    return shlex.join([python, "-m", f"diffusion_lit.{name}", *given])
