"""Which torch `make` installs: CPU builds where there is no GPU and they can be reached, else what PyPI has."""

import subprocess
from pathlib import Path

import pytest

from tests.launch import ROOT

PYTHON = """
echo "$*" >> "$LOG"
case "$*" in
    -c*) [ "$INDEX" = answers ] ;; # does the index answer?
    *--index-url*) [ "$CPU" = there ] ;;
esac
"""
STUBS = {"uname": 'echo "$SYSTEM"', "python": PYTHON, "nvidia-smi": ""}


def install(
    tmp_path: Path, system: str = "Linux", index: str = "answers", cpu: str = "there", gpu: bool = False
) -> tuple[str, list[str]]:
    """What is said, and pip's commands."""
    for name, script in STUBS.items():
        if name != "nvidia-smi" or gpu:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
    for name in ("head", "sh"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    log = tmp_path / "log"
    log.touch()
    done = subprocess.run(
        [ROOT / ".ci" / "install_torch", tmp_path / "python", "torch>=2.10", "torchvision>=0.25"],
        env={"PATH": str(tmp_path), "LOG": str(log), "SYSTEM": system, "INDEX": index, "CPU": cpu},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout, [line for line in log.read_text().splitlines() if line.startswith("-m pip")]


@pytest.mark.parametrize(
    ("settings", "words", "sources"),
    [
        ({}, "for CPUs", ["cpu"]),
        ({"index": "silent"}, "gave no CPU builds", ["pypi"]),
        ({"cpu": "gone"}, "gave no CPU builds", ["cpu", "pypi"]),
        ({"gpu": True}, "with CUDA", ["pypi"]),
        ({"system": "Darwin"}, "elsewhere under 1 GB", ["pypi"]),
    ],
)
def test_torch_comes_from_where_it_should(
    settings: dict[str, str], words: str, sources: list[str], tmp_path: Path
) -> None:
    if any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
        pytest.skip("this machine has a GPU")
    said, commands = install(tmp_path, **settings)
    assert words in said
    assert ["cpu" if "--index-url https://download.pytorch.org/whl/cpu" in c else "pypi" for c in commands] == sources
    assert all(command.endswith("torch>=2.10 torchvision>=0.25") for command in commands)
