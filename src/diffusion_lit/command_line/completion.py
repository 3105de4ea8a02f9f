"""Completion in bash and zsh of commands, groups, members, settings and paths."""

from collections.abc import Iterator

from diffusion_lit.command_line.catalogue import COMMANDS, PATHS, chosen_settings, groups_of, members
from diffusion_lit.command_line.described import describe
from diffusion_lit.command_line.kind import Schema, schema_of
from diffusion_lit.command_line.slips import choices_in

__all__ = ["SCRIPTS", "complete"]

BASH = r"""# diffusion-lit completion bash: put eval "$(diffusion-lit completion bash)" into ~/.bashrc
_diffusion_lit() {
    local line="${COMP_LINE:0:COMP_POINT}" word prefix IFS=$'\n'
    word="${line##* }"
    COMPREPLY=($(diffusion-lit complete "$line" 2>/dev/null))
    if [[ ${COMPREPLY[0]} == @paths ]]; then
        COMPREPLY=($(compgen -f -- "${word#*=}"))
        compopt -o filenames 2>/dev/null
    else
        prefix="${word%"${word##*[=:]}"}"  # bash breaks words there, and puts back only what follows
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
        [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -F _diffusion_lit diffusion-lit
"""
ZSH = r"""# diffusion-lit completion zsh: put eval "$(diffusion-lit completion zsh)" after compinit in ~/.zshrc
_diffusion_lit() {
    local -a found
    found=("${(@f)$(diffusion-lit complete "$LBUFFER" 2>/dev/null)}")
    if [[ $found[1] == @paths ]]; then
        compset -P '*='
        _files
    else
        compadd -Q -S '' -- ${(M)found:#*=}
        compadd -Q -- ${found:#*=}
    fi
}
compdef _diffusion_lit diffusion-lit
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
OPTIONS = ("--help", "--cfg", "--multirun", "--config-dir", "--info", "--hydra-help")


def complete(line: str) -> list[str]:
    """What the last word of a command line, `diffusion-lit ...` up to the cursor, may become.

    `@paths` alone stands for the names of files, which the shell knows best.
    """
    *typed, word = line.split(" ")
    words = [part for part in typed if part][1:]
    if not words:
        return sorted(name for name in (*COMMANDS, "completion", "schema", "help") if name.startswith(word))
    command = words[0]
    if command == "completion":
        return [shell for shell in SCRIPTS if shell.startswith(word)]
    if command not in COMMANDS:
        return []
    key, equals, value = word.partition("=")
    if not equals:
        return sorted({name for name in candidates(command, words) if name.startswith(word)})
    plain = key.lstrip("+~")
    if plain in groups_of(command):
        head, _, last = (
            value.rpartition(",") if "," in value else ("[" if value[:1] == "[" else "", "", value.lstrip("["))
        )
        start = f"{head}," if "," in value else head
        return [f"{key}={start}{name}" for name in members(plain) if name.startswith(last)]
    if plain.rpartition(".")[2] in PATHS:
        return ["@paths"]
    return [f"{key}={name}" for name in values(command, plain, words) if name.startswith(value)]


def candidates(command: str, words: list[str]) -> Iterator[str]:
    """What a word may begin with: options, groups, and the settings of the members that are chosen."""
    yield from OPTIONS
    if "--help" in words:
        yield from groups_of(command)
    yield from (f"{group}=" for group in groups_of(command))
    for key in chosen_settings(command, choices_in(words)):
        if not key.rpartition(".")[2].startswith("_") and not key.startswith(("module.", "denoiser.")):
            yield f"{key}="


def values(command: str, key: str, words: list[str]) -> list[str]:
    """The values of a setting, where there are only a few."""
    settings = chosen_settings(command, choices_in(words))
    part, _, name = key.rpartition(".")
    target = settings.get(f"{part}._target_")
    cls = describe(str(target.value)) if target else None
    schema: Schema = schema_of(cls.arguments[name]) if cls and name in cls.arguments else {}
    options = schema.get("anyOf", [schema])
    named = [str(value) for option in options for value in option.get("enum", ())]
    kinds = {option.get("type") for option in options}
    if isinstance(getattr(settings.get(key), "value", None), bool):
        kinds.add("boolean")
    return named + ["true", "false"] * ("boolean" in kinds) + ["null"] * ("null" in kinds)
