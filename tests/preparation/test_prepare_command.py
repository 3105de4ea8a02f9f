"""The command as a user types it: help, mistakes, and what it says to do next."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from diffusion_lit.prepare import main
from tests.launch import TINY, read_by_bash, run_command, run_forked
from tests.pictures import named, tree, write_folder, write_tar

pytestmark = pytest.mark.usefixtures("own_logging")

FILES = named(24)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "in", FILES)


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says in this process, which has loaded everything already."""
    monkeypatch.setattr(sys, "argv", ["prepare", *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert len(printed.err.splitlines()) <= 20, "it fits a screen"
    return printed.err


MISTAKES = {
    "fit=cover": ["fit", "center_crop, resize", "cover"],
    "filter=nearest": ["filter", "bicubic, lanczos, box", "nearest"],
    "encoding=webp": ["encoding", "auto, raw, png, jpeg", "webp"],
    "channels=0": ["channels", "at least 1: 1 grey", "got 0"],
    "resolution=0": ["resolution", "at least 1", "got 0"],
    "resolution=-8": ["resolution", "at least 1", "got -8"],
    "resolution=big": ["resolution", "whole number", "got big"],
    "resolution=64.5": ["resolution", "whole number", "got 64.5"],
    "resolution=40000": ["resolution must be at most 32768, got 40000"],
    "source=hf:": ["source=hf: names no dataset"],
    "label_column=label": ["label_column=label is for source=hf:NAME"],
    "root=null": ["root must be text, got null"],
    "resolution=null": ["resolution= is not given"],
    "workers=0": ["workers", "at least 1", "got 0"],
    "workers=auto": ["workers", "whole number", "got 'auto'"],
    "shard_megabytes=0": ["shard_megabytes", "at least 1"],
    "max_pixels=0": ["max_pixels", "at least 1"],
    "max_pixels=200000000": ["max_pixels", "at most 178956970"],
    "val_fraction=0": ["val_fraction", "between 0 and 0.5", "got 0"],
    "val_fraction=0.5": ["val_fraction", "between 0 and 0.5", "got 0.5"],
    "val_fraction=half": ["val_fraction", "a number", "got 'half'"],
    "max_unreadable=-0.1": ["max_unreadable", "from 0 to 1", "got -0.1"],
    "max_unreadable=2": ["max_unreadable", "from 0 to 1", "got 2"],
    "max_unreadable=some": ["max_unreadable", "a number", "got 'some'"],
    "source=nowhere": ["source=nowhere is not there", "a folder, a .zip or .tar file, hf:NAME or torchvision:NAME"],
    "source=null": ["source= is not given"],
    "source=7": ["source=7 is not there"],
    "source=notes.txt": ["source=notes.txt", "must end in .zip, .tar"],
    "source=empty": ["no images in empty", ".png"],
    "source=torchvision:CIFAR": ["torchvision has no dataset CIFAR", "CIFAR10"],
    "out=null": ["out= is not given"],
    "out=notes.txt": ["notes.txt cannot be written to", "out="],
    "out=notes.txt/set": ["notes.txt/set cannot be written to", "out="],
    "out=in": ["in is not a prepared set, but not empty either", "out="],
    "+sise=3": ["sise is not a setting of prepare", "--cfg job"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_user_error_is_reported_on_one_screen(
    mistake: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("not a folder")
    Path("empty").mkdir()
    before = tree(Path.cwd())
    message = told(monkeypatch, capsys, "source=in", "out=out", "resolution=8", mistake)
    for words in MISTAKES[mistake]:
        assert words in message
    assert tree(Path.cwd()).keys() - before.keys() <= {"error.log"}


@pytest.mark.parametrize("missing", ["source", "out", "resolution"])
def test_what_is_not_given_is_named(
    missing: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"source": "in", "out": "out", "resolution": "8"}
    options = [f"{key}={value}" for key, value in given.items() if key != missing]
    assert f"{missing}= is not given" in told(monkeypatch, capsys, *options)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_latents_are_stored_raw(
    encoding: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("source=in", "out=out", "resolution=8", "latents=vae", f"encoding={encoding}")
    assert f"latents are stored raw; encoding={encoding}" in told(monkeypatch, capsys, *options)


def test_an_archive_into_a_file_in_the_way(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is decompressed into the set's folder before anything else."""
    Path("notes.txt").write_text("not a folder")
    write_tar(Path("a.tar.gz"), FILES, "w:gz")
    message = told(monkeypatch, capsys, "source=a.tar.gz", "out=notes.txt", "resolution=8")
    assert "notes.txt cannot be written to" in message
    before = tree(images)
    assert "in is not a prepared set" in told(monkeypatch, capsys, "source=a.tar.gz", "out=in", "resolution=8")
    assert tree(images) == before


def test_help_comes_without_loading_torch(tmp_path: Path) -> None:
    """What takes the time is torch; a clock would be at the mercy of the machine."""
    for name in ("torch", "torchvision", "litdata", "datasets", "numpy", "PIL"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} was loaded')")
    done = run_command(
        "prepare", "--help", cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}
    )
    assert done.returncode == 0 and done.stdout.count("python -m diffusion_lit.prepare") >= 3
    assert "  resolution=???" in done.stdout


def test_what_it_says_to_do_next_works(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "cat" / "broken.png").write_bytes(b"no image")
    (images / "notes.txt").write_text("about")
    out = "it's a=set"
    options = ("source=in", f"out={out}", "resolution=8", "val_fraction=0.2", "channels=1", "max_unreadable=0.1")
    monkeypatch.setattr(sys, "argv", ["prepare", *options])
    main()
    printed = capsys.readouterr().out
    for words in ("25 images, 3 classes", "left out 1 file:", "notes.txt", "left out 1 image that", "1 x 8 x 8 raw"):
        assert words in printed
    lines = printed.split("Try next\n")[1].splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("inspect", "train"), strict=True):
        assert f" -m diffusion_lit.{name} " in line
        tiny = [*TINY, "data.batch_size=8", "trainer.max_steps=2", "callback.fid=null"] if name == "train" else []
        dash, module, *arguments = read_by_bash(f"{line} {shlex.join(tiny)}")
        assert (dash, module) == ("-m", f"diffusion_lit.{name}")
        tried = run_forked(name, *arguments, cwd=tmp_path)
        assert tried.returncode == 0, tried.stderr
        assert name == "train" or "cat" in tried.stdout
    before = tree(tmp_path / out)
    main()
    assert "prepared before" in capsys.readouterr().out and tree(tmp_path / out) == before
