"""Between a shell and Hydra: paths are read as they are typed, and commands are printed so that they can be pasted."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from diffusion_lit.command_line.catalogue import PATHS

__all__ = [
    "OWN_PACKAGES",
    "PATHS",
    "by_key",
    "command_line",
    "is_multirun",
    "key_of",
    "own_folders",
    "quote",
    "read_arguments",
]

READ_CHECKPOINTS = ("train", "sample", "evaluate", "export", "plot")
OWN_PACKAGES: list[str] = []
"""The user's own, whose classes the checkpoint of the run that is trained here names."""

NAMES = ("labels",)
"""Keys whose values are names of classes, which have whatever characters folders have, or numbers."""

QUOTED = r"""(?P<mark>['"])(?:\\.|(?!(?P=mark))[^\\])*(?P=mark)"""
PIECE = re.compile(rf"(?:^|,)\s*({QUOTED}(?=\s*(?:,|$))|[^,]*)", re.DOTALL)
PARSER = OverridesParser.create()


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether a command does a job for each combination of values."""
    return not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(arguments)


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command for Hydra, which then takes the value of a path to be the text that was typed.

    The name of a file or folder that exists is that name, whatever characters it has. Otherwise `null`, values within
    quotes, lists and interpolations `${...}` mean what they do in Hydra, a comma in a multirun separates jobs, and `~`
    is the home folder. A class may have any name too.

    Raises:
        ValueError: if a path is empty, or Hydra cannot read the value of another key; the message has the quoting that
            it can read.
    """
    multirun = is_multirun(arguments)
    return [
        read_argument(argument, multirun) if "=" in argument and not argument.startswith(("-", "~")) else argument
        for argument in arguments
    ]


def read_argument(argument: str, multirun: bool) -> str:
    key, _, value = argument.partition("=")
    if key.rpartition(".")[2].lstrip("+") in PATHS:
        if not value:
            raise ValueError(
                f"{argument} is empty, as a variable of the shell is that is not set: give a path, or null for none"
            )
        if not is_text(value):
            raise ValueError(f"{key}={value!a} is not UTF-8, as records of settings are: rename it, or link to it")
        return f"{key}={read_path(value, multirun)}"
    try:
        PARSER.parse_override(argument)
    except HydraException as error:
        texts = f"{key}={with_quotes(value)}"
        if key.lstrip("+") in NAMES:
            return texts
        remedy = shlex.quote(texts)
        raise ValueError(f"{argument} cannot be read as KEY=VALUE; if the value is text, type {remedy}") from error
    return argument


def is_text(name: str) -> bool:
    """Whether the name of a file is text, and not other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_quotes(text: str) -> str:
    """A value that Hydra cannot read, or each item of a list that it cannot, within quotes."""
    if not (text.startswith("[") and text.endswith("]")):
        return quote(text)
    return f"[{','.join(piece if is_readable(piece) else quote(piece) for piece in pieces(text[1:-1]))}]"


def is_readable(text: str) -> bool:
    try:
        PARSER.parse_override(f"key={text}")
    except HydraException:
        return False
    return True


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


def key_of(override: str) -> str:
    """The key of the setting that an override adds, changes or takes away."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].lstrip("/")


def by_key(overrides: Iterable[str]) -> dict[str, object]:
    """The values of overrides by what stands before them, as `command_line` takes them: `~KEY` alone has None."""
    return {key: value if sign else None for key, sign, value in (o.partition("=") for o in overrides)}


def own_folders(name: str) -> list[str]:
    """Arguments by which a command finds the user's configurations, as the running one does if it has that name."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != name:
        return []
    sources = [s for s in HydraConfig.get().runtime.config_sources if s.provider.endswith("command-line")]
    folders = [os.path.abspath(source.path) for source in sources if source.schema == "file"]
    if len(folders) < 2:
        return [f"--config-dir={folder}" for folder in folders]
    return [f"hydra.searchpath=[{','.join(quote(folder, always=True) for folder in folders)}]"]


def command_line(name: str, settings: Mapping[str, object]) -> str:
    """`python -m diffusion_lit.NAME KEY=VALUE ...`, to be pasted into a shell, in whatever folder; None is no value.

    Where the running command has parts of the user's own, so has the printed one: `allow=` and the folder of their
    configurations.
    """
    if OWN_PACKAGES and name in READ_CHECKPOINTS:
        settings = {**settings, "allow": f"[{','.join(OWN_PACKAGES)}]"}
    settings = {**settings, **dict.fromkeys(own_folders(name))}
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    given = [key if value is None else f"{key}={value}" for key, value in settings.items()]
    return shlex.join([python, "-m", f"diffusion_lit.{name}", *given])
