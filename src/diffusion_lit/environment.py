"""What a result depends on beside its settings: versions, the machine, and the code in the user's folder."""

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from diffusion_lit import __version__

__all__ = ["PLATFORM", "GitState", "git_state", "machine", "versions"]

PLATFORM = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")
"""The packages that training depends on."""
MAX_PATCH = 2**20
"""Bytes of a patch that is kept."""
MAX_NAMES = 100
"""Files that are not committed, and are listed."""
PATIENCE = 10.0
"""Seconds that git may take for an answer."""
SAFE = ("--no-optional-locks", "-c", "core.fsmonitor=false")
"""Nothing is written to the repository, and no program of its settings watches it."""


@cache
def versions(packages: tuple[str, ...] = PLATFORM) -> dict[str, str]:
    """Python's and this project's versions, and those of `packages`; one that is not installed is left out."""
    found = {"python": platform.python_version(), "diffusion-lit": __version__}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def machine() -> dict[str, Any]:
    """The computer: name, system, processors, memory in GiB, GPUs."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found: dict[str, Any] = {"host": platform.node(), "system": platform.platform(), "cpu": processor()}
    found |= {"cpu_count": os.cpu_count(), "memory_gib": memory(), "gpus": gpus}
    return found | ({"cuda": torch.version.cuda} if gpus else {})


def processor() -> str:
    """The processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> float | None:
    """GiB of memory, where the system says it."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


class GitState:
    """A folder's commit and what is not committed, as they were when it was first looked at.

    Attributes:
        facts: `commit`, `branch`, `changed` and `untracked` files, and what became of the `patch`.
        patch: the difference to the commit, in all of the repository; empty if there is none, or it is over 1 MiB.
    """

    def __init__(self, folder: str, commit: str) -> None:
        self.facts: dict[str, Any] = {"commit": commit, "branch": line(folder, "rev-parse", "--abbrev-ref", "HEAD")}
        changed = names(folder, "diff", "--name-only", "-z", "--no-ext-diff", "HEAD")
        untracked = names(folder, "ls-files", "--others", "--exclude-standard", "--directory", "-z")
        self.facts |= {"changed": listed(changed), "untracked": listed(untracked), "patch": None}
        options = ("--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
        self.patch = git(folder, "diff", *options, limit=MAX_PATCH + 1) if changed else b""
        if len(self.patch) > MAX_PATCH:
            self.patch, self.facts["patch"] = b"", f"left out: over {MAX_PATCH // 2**20} MiB"


@cache
def git_state(folder: str) -> GitState | None:
    """The state of the git repository that `folder` is in; None if there is none, or no git.

    It is looked at once a process, whose code is then loaded.
    """
    commit = line(folder, "rev-parse", "--verify", "HEAD")
    return GitState(folder, commit) if commit else None


def git(folder: str, *arguments: str, limit: int = MAX_PATCH) -> bytes:
    """The first `limit` bytes of git's answer; none if it refuses, takes too long, or is not installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's
    with TemporaryFile() as answer:
        try:
            subprocess.run(
                ["git", *SAFE, "-C", folder, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=PATIENCE,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return b""
        answer.seek(0)
        return answer.read(limit)


def line(folder: str, *arguments: str) -> str:
    return git(folder, *arguments).decode(errors="replace").strip()


def names(folder: str, *arguments: str) -> list[str]:
    """The names that git lists, between zero bytes."""
    return [name.decode(errors="replace") for name in git(folder, *arguments).split(b"\0") if name]


def listed(files: list[str]) -> list[str]:
    more = len(files) - MAX_NAMES
    return files if more <= 0 else [*files[:MAX_NAMES], f"and {more} more"]
