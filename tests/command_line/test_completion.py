"""Completion: what is offered, and that bash and zsh offer it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_lit.command_line.completion import SCRIPTS, complete

OFFERED = {
    "": [
        "completion",
        "evaluate",
        "export",
        "help",
        "inspect",
        "plot",
        "prepare",
        "report",
        "sample",
        "schema",
        "train",
    ],
    "tr": ["train"],
    "completion ": ["bash", "zsh"],
    "train sampler=d": ["sampler=ddim", "sampler=ddpm", "sampler=dpmpp_2m", "sampler=dpmpp_3m"],
    "train logger=[csv,w": ["logger=[csv,wandb"],
    "train -m schedule=linear,cosine_": ["schedule=linear,cosine_continuous"],
    "train sampler=heun sampler.sc": ["sampler.scaled="],
    "train sampler.sc": [],
    "train optimizer.l": ["optimizer.lr="],
    "train model.learn_variance=": ["model.learn_variance=true", "model.learn_variance=false"],
    "train resume=": ["@paths"],
    "sample ckpt=out": ["@paths"],
    "train data=memmap data.root=": ["@paths"],
    "prepare enc": ["encoding="],
    "train --h": ["--help", "--hydra-help"],
    "nothing ": [],
}


@pytest.mark.parametrize("line", OFFERED)
def test_a_word_is_completed(line: str) -> None:
    assert complete(f"diffusion-lit {line}") == OFFERED[line]


@pytest.fixture(scope="module")
def shell_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and the command on the way to it."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "bin").mkdir()
    command = folder / "bin" / "diffusion-lit"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffusion_lit "$@"\n')
    command.chmod(0o755)
    return folder


def run(shell: str, script: str, folder: Path) -> list[str]:
    (folder / "completion").write_text(SCRIPTS[shell])
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TERM": "dumb"}
    options = ["-f"] if shell == "zsh" else ["--norc"]
    done = subprocess.run([shell, *options, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_bash_completes(shell_folder: Path) -> None:
    """By the function that `complete -p` says it calls, with what readline gives to it."""
    script = r"""
    source ./completion
    [[ $(complete -p diffusion-lit) == *"-F _diffusion_lit"* ]] || exit 1
    try() { COMP_LINE="$1"; COMP_POINT=${#1}; COMPREPLY=(); _diffusion_lit; echo "${COMPREPLY[*]}"; }
    try "diffusion-lit sa"
    try "diffusion-lit train sampler=he"
    try "diffusion-lit train optimizer.l"
    try "diffusion-lit sample ckpt=runs/o"
    """
    # bash puts back only what follows the last = in the word
    assert run("bash", script, shell_folder) == ["sample", "heun", "optimizer.lr=", "runs/one"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes(shell_folder: Path) -> None:
    """In a terminal of its own, as it is typed: TAB, and the line that there is then."""
    script = r"""
    zmodload zsh/zpty
    zpty z "zsh -f -i"
    zpty -w z 'PS1=; autoload -U compinit; compinit -u -D; source ./completion'
    zpty -w z 'take() { print -r -- "GOT<$BUFFER>"; BUFFER=; zle accept-line }; zle -N take; bindkey "^X" take'
    for line in "sa" "train sampler=he" "train optimizer.l" "sample ckpt=runs/o"; do
        zpty -n -w z "diffusion-lit $line"$'\t\x18'
        zpty -r z text $'*GOT<diffusion*>*'
        print -r -- "$text" | grep -ao 'GOT<[^$][^>]*>'
    done
    zpty -d z
    """
    said = run("zsh", script, shell_folder)
    assert said == [
        "GOT<diffusion-lit sample >",
        "GOT<diffusion-lit train sampler=heun >",
        "GOT<diffusion-lit train optimizer.lr=>",
        "GOT<diffusion-lit sample ckpt=runs/one/>",
    ]
