"""Commands of a run, to be pasted into a shell: to train it again or on, to draw from it, to evaluate it."""

import re
import shlex
from collections.abc import Sequence

from diffusion_lit.budget import doubled, limits_in
from diffusion_lit.command_line.shell import command_line
from diffusion_lit.run.past import Evaluation, PastRun

__all__ = ["commands_of", "folders_remark", "measured_again"]

FOLDERS = ("--config-dir=", "hydra.searchpath=")
"""Arguments that name folders of configurations."""


def commands_of(run: PastRun) -> list[tuple[str, str]]:
    """Each with what it is for. What cannot be done, since files or the record of it are not there, is left out.

    The record of a run is a file, which somebody else may have written: see `repeated`.
    """
    found = []
    command, folder = run.record.get("command"), run.record.get("started_in")
    if isinstance(command, list) and isinstance(folder, str):
        if again := repeated("train", [str(word) for word in command]):
            found.append((f"Train it again{folders_remark(again)}", f"cd {shlex.quote(folder)} && {again}"))
        if code := code_of(run):
            found.append(("with the code that it had", f"cd {shlex.quote(folder)} && {code}"))
    if any((run.folder / "checkpoints").glob("*.ckpt")):
        if run.is_finished:
            limits = limits_in(run.config.get("trainer")) or {"max_steps": max(run.step, 1)}
            longer = doubled(limits, {"max_steps": run.step})
            found.append(("Train on, twice as long", command_line("train", {"resume": run.folder, **longer})))
        else:
            found.append(("Continue it", command_line("train", {"resume": run.folder})))
        found.append(("Draw from it", command_line("sample", {"ckpt": run.folder})))
        found.append(("Evaluate it", command_line("evaluate", {"ckpt": run.folder})))
    return found


def repeated(name: str, words: Sequence[str]) -> str | None:
    """A recorded command `PYTHON -m diffusion_lit.NAME KEY=VALUE ...`, quoted, with the Python that runs.

    None if it is any other command, or has options, but for a folder of configurations (see `folders_remark`): a file
    could name any program.
    """
    options = [word for word in words[3:] if word.startswith("-") and not word.startswith(FOLDERS)]
    if list(words[1:3]) != ["-m", f"diffusion_lit.{name}"] or options:
        return None
    pairs = [word.partition("=") for word in words[3:]]
    return command_line(name, {key: value if sign else None for key, sign, value in pairs})


def folders_remark(command: str) -> str:
    """What to know of a command that reads configurations besides this project's, in which any program can be named."""
    named = [word.partition("=")[2] for word in shlex.split(command) if word.startswith(FOLDERS)]
    return f", with configurations of {' and '.join(named)}: read these first if they are not yours" if named else ""


def measured_again(evaluation: Evaluation) -> str | None:
    """The command of an evaluation, as far as it is one (see `repeated`)."""
    try:
        return repeated("evaluate", shlex.split(str(evaluation.record.get("command", ""))))
    except ValueError:
        return None


def code_of(run: PastRun) -> str | None:
    """How to have the code of a run, in its repository; None where the record does not say it."""
    git = run.record.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    patch = run.folder / "code.patch"
    return f"git checkout {commit}" + (f" && git apply {shlex.quote(str(patch))}" if patch.is_file() else "")
