"""`--help`: what a command does, its groups with a line for each member, and what each setting means.

All of it comes from conf/ and the classes' docstrings; neither Hydra nor torch is loaded for it.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence

from diffusion_lit.command_line.catalogue import (
    CONFIG_FOLDER,
    Setting,
    chosen_settings,
    groups_of,
    member_settings,
    members,
    read,
)
from diffusion_lit.command_line.described import Class, describe
from diffusion_lit.command_line.kind import literal, schema_of, words_for
from diffusion_lit.command_line.slips import options_and_settings
from diffusion_lit.command_line.suggestion import meant_member, unknown_key

__all__ = ["answer", "header_of", "help_of", "summary_of"]

HELP = CONFIG_FOLDER / "hydra" / "help"
WIDTH = 120


def answer(command: str, arguments: Sequence[str]) -> bool:
    """Print the help that a command line asks for; whether it does."""
    if {"-h", "--help"}.isdisjoint(arguments):
        return False
    topics = options_and_settings(arguments)[1]
    text = "\n\n".join(topic_help(command, topic) for topic in topics) if topics else help_of(command)
    print(text)
    return True


def header_of(command: str) -> str:
    """One line on what a command does."""
    return str(read(HELP / f"{command}.yaml").settings["header"].value)


def help_of(command: str) -> str:
    """The whole help of a command."""
    template = str(read(HELP / f"{command}.yaml").settings["template"].value)
    examples = template.replace("${hydra.help.header}", header_of(command)).replace("${hydra.help.footer}", "")
    parts = [examples.strip()]
    if groups := groups_of(command):
        title = (
            "Groups: GROUP=MEMBER chooses; * is taken unless another is chosen; --help GROUP=MEMBER says what it takes"
        )
        parts.append("\n".join([title, *(line for group in groups for line in group_lines(command, group))]))
    own = {key: s for key, s in read(CONFIG_FOLDER / f"{command}.yaml").settings.items() if "." not in key}
    lines = [f"  {key}={typed(setting.value)}" for key, setting in own.items()]
    width = min(26, max(map(len, lines)) + 2)
    said = [two_columns(line, setting.comment, width) for line, setting in zip(lines, own.values(), strict=True)]
    parts += ["\n".join(["Settings: KEY=VALUE", *said]), str(read(HELP / "footer.yaml").settings["footer"].value)]
    return "\n\n".join(parts)


def group_lines(command: str, group: str) -> Iterator[str]:
    """A group's name, and a line for each of its members."""
    yield f"  {group}"
    width = max(map(len, members(group)), default=0)
    for name in members(group):
        mark = "*" if name in groups_of(command)[group] else " "
        yield two_columns(f"  {mark} {name}", summary_of(group, name), width + 6)


def summary_of(group: str, name: str) -> str:
    """One line on a member: the comment that its file begins with, or what its class's file says of itself."""
    file = read(CONFIG_FOLDER / group / f"{name}.yaml")
    if file.about:
        sentence = re.match(r"(.*?)(?<!al)(\.|: \w+=.*)(?= |$)", " ".join(file.about))
        return sentence[1] if sentence else " ".join(file.about)
    cls = class_of(dict(member_settings(group, name)))
    return (cls.summary if cls else "").rstrip(".")


def class_of(settings: dict[str, Setting], part: str | None = None) -> Class | None:
    """The class that settings go to: that of a part, or the first."""
    keys = [key for key in settings if key.endswith("_target_") and part in (None, key.removesuffix("._target_"))]
    return describe(str(settings[keys[0]].value)) if keys else None


def topic_help(command: str, topic: str) -> str:
    """What `--help TOPIC` prints: on a member, a group or a setting.

    Raises:
        ValueError: if a command has nothing of that name.
    """
    key, _, name = topic.lstrip("+~").partition("=")
    if key in groups_of(command) and name in members(key):
        return member_help(key, name)
    if key in groups_of(command) and name:
        raise ValueError(f"{key} has no {name}: {meant_member(key, name)}")
    if key in groups_of(command):
        chosen = [member_help(key, member) for member in groups_of(command)[key] if member in members(key)]
        return "\n\n".join(["\n".join(group_lines(command, key)), *chosen])
    if holders := [group for group in groups_of(command) if topic in members(group)]:
        return "\n\n".join(member_help(group, topic) for group in holders)
    settings = chosen_settings(command)
    within = {full: setting for full, setting in settings.items() if full == key or full.startswith(f"{key}.")}
    if not within:
        raise ValueError(unknown_key(command, key, None))
    return "\n".join(settings_help(settings, within))


def member_help(group: str, name: str) -> str:
    """Everything on one member: what it is, and its settings with kinds, defaults and meanings."""
    settings = dict(member_settings(group, name))
    cls = class_of(settings, group) or class_of(settings)
    about = " ".join(read(CONFIG_FOLDER / group / f"{name}.yaml").about)
    texts = [f"{group}={name}: {about or summary_of(group, name)}", cls.about if cls and cls.about else ""]
    lines = [
        textwrap.fill(text, WIDTH, initial_indent="  " * i, subsequent_indent="  ")
        for i, text in enumerate(texts)
        if text
    ]
    lines += settings_help(settings, settings) or ["  It has no settings."]
    part = next((key for key in settings if key.endswith("_target_")), "").removesuffix("._target_")
    if cls and (others := [key for key, a in cls.arguments.items() if a.default and f"{part}.{key}" not in settings]):
        listed = ", ".join(f"+{part}.{key}={literal(cls, key)}" for key in others)
        lines.append(textwrap.fill(f"  {cls.name} takes more, with a +: {listed}", WIDTH, subsequent_indent="    "))
    return "\n".join(lines)


def settings_help(settings: dict[str, Setting], shown: dict[str, Setting]) -> list[str]:
    """Two or more lines for each of the settings `shown`."""
    lines = []
    for key, setting in shown.items():
        part, _, name = key.rpartition(".")
        if name.startswith("_"):
            continue
        cls = class_of(settings, part) if part else None
        argument = cls.arguments.get(name) if cls else None
        kind = words_for(schema_of(argument)) if argument else "anything"
        text = re.sub(r"\bNone\b", "null", argument.text) if argument else ""
        lines.append(f"  {key}={typed(setting.value)}" + (f"  ({kind})" if kind != "anything" else ""))
        new = set(re.findall(r"\w{4,}", setting.comment.lower())) - set(re.findall(r"\w+", text.lower()))
        for said in (text.rstrip("."), setting.comment if new or not text else ""):
            lines += textwrap.wrap(said, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def typed(value: object) -> str:
    """A value as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return "{}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def two_columns(left: str, right: str, width: int) -> str:
    """A name and what it means, which begins on the next line if the name is long."""
    indent = " " * width
    filled = textwrap.fill(right, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if not right:
        return left
    return f"{left}\n{filled}" if len(left) + 1 > width else f"{left:{width}}{filled[width:]}"
