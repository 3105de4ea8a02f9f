"""Commands of a run, to be pasted into a shell: to train it again or on, to draw from it, to evaluate it."""

import re
import shlex

from diffusion_lit.past_run import PastRun
from diffusion_lit.shell import command_line

__all__ = ["commands_of"]

TRAIN = ["python", "-m", "diffusion_lit.train"]


def commands_of(run: PastRun) -> list[tuple[str, str]]:
    """Each with what it is for. What cannot be done, since files or the record of it are not there, is left out.

    The record of a run is a file, which somebody else may have written: of its command only arguments of `train` are
    taken, and quoted.
    """
    found = []
    command, folder = run.record.get("command"), run.record.get("started_in")
    if isinstance(command, list) and command[:3] == TRAIN and isinstance(folder, str):
        overrides = [str(text) for text in command[3:]]
        if not any(text.startswith("-") for text in overrides):
            given = {key: value if sign else None for key, sign, value in (text.partition("=") for text in overrides)}
            found.append(("Train it again", f"cd {shlex.quote(folder)} && {command_line('train', given)}"))
        if code := code_of(run):
            found.append(("with the code that it had", f"cd {shlex.quote(folder)} && {code}"))
    if any((run.folder / "checkpoints").glob("*.ckpt")):
        if run.is_finished:
            longer = {"resume": run.folder, "trainer.max_steps": 2 * max(run.step, 1)}
            found.append(("Train on, twice as long", command_line("train", longer)))
        else:
            found.append(("Continue it", command_line("train", {"resume": run.folder})))
        found.append(("Draw from it", command_line("sample", {"ckpt": run.folder})))
        found.append(("Evaluate it", command_line("evaluate", {"ckpt": run.folder})))
    return found


def code_of(run: PastRun) -> str | None:
    """How to have the code of a run, in its repository; None where the record does not say it."""
    git = run.record.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    patch = run.folder / "code.patch"
    return f"git checkout {commit}" + (f" && git apply {shlex.quote(str(patch))}" if patch.is_file() else "")
