"""Commands of a run, to be pasted into a shell: to train it again or on, to draw from it, to evaluate it."""

import re
import shlex
from collections.abc import Sequence

from diffusion_lit.budget import doubled, limits_in
from diffusion_lit.command_line.sample_settings import settings_of_record
from diffusion_lit.command_line.shell import by_key, command_line
from diffusion_lit.run.past import Evaluation, PastRun
from diffusion_lit.trust.recorded import own_packages

__all__ = ["commands_of", "measured_again", "own_remark"]

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
            found.append((f"Train it again{own_remark(again)}", f"cd {shlex.quote(folder)} && {again}"))
        if code := code_of(run):
            found.append(("with the code that it had", f"cd {shlex.quote(folder)} && {code}"))
    if any((run.folder / "checkpoints").glob("*.ckpt")):
        own = [name for name in own_packages(run.config) if name.isidentifier()]
        allow: dict[str, object] = {"allow": f"[{','.join(own)}]"} if own else {}
        here = f"cd {shlex.quote(folder)} && " if own and isinstance(folder, str) else ""  # where Python finds them
        if run.is_finished:
            limits = limits_in(run.config.get("trainer")) or {"max_steps": max(run.step, 1)}
            longer = {"resume": run.folder, **doubled(limits, {"max_steps": run.step})}
            following = [("Train on, twice as long", "train", longer)]
        else:
            following = [("Continue it", "train", {"resume": run.folder})]
        if (run.folder / "checkpoints" / "last.ckpt").is_file():
            model = {"ckpt": run.folder, **settings_of_record(run.config)}
            following += [("Draw from it", "sample", model), ("Evaluate it", "evaluate", model)]
        for purpose, name, settings in following:
            line = command_line(name, settings | allow | (dict.fromkeys(folders_of(run)) if name == "train" else {}))
            found.append((f"{purpose}{own_remark(line, own)}", f"{here}{line}"))
    return found


def folders_of(run: PastRun) -> list[str]:
    """The arguments of a run's recorded command that name folders of configurations."""
    command = run.record.get("command")
    return [str(word) for word in command if str(word).startswith(FOLDERS)] if isinstance(command, list) else []


def repeated(name: str, words: Sequence[str]) -> str | None:
    """A recorded command `PYTHON -m diffusion_lit.NAME KEY=VALUE ...`, quoted, with the Python that runs.

    None if it is any other command, or has options, but for a folder of configurations (see `own_remark`): a file
    could name any program.
    """
    options = [word for word in words[3:] if word.startswith("-") and not word.startswith(FOLDERS)]
    if list(words[1:3]) != ["-m", f"diffusion_lit.{name}"] or options:
        return None
    return command_line(name, by_key(words[3:]))


def own_remark(command: str, own: Sequence[str] = ()) -> str:
    """What to know of a command that runs classes of `own` packages, or reads configurations besides this project's.

    Any program can be named there.
    """
    named = [f"classes of {name}" for name in own]
    named += [
        f"configurations of {word.partition('=')[2]}" for word in shlex.split(command) if word.startswith(FOLDERS)
    ]
    return f", with {' and '.join(named)}: read these first if they are not yours" if named else ""


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
