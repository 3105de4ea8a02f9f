"""Every command and every Python block of the documents, run with short settings.

Files that are made once stand in the places of the reader's own; what cannot be run here is listed, and why.
"""

import importlib
import json
import os
import pickle
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from diffusers import AutoencoderKL
from PIL import Image

import diffusion_lit as dl
from diffusion_lit.command_line.shell import quote
from tests.documents import COMMAND, PAGES, blocks, command_lines, commands_shown
from tests.interop.test_edm import STAND_IN
from tests.interop.test_openai_unet import NETWORKS
from tests.interop.weights import filled
from tests.launch import ROOT, run_forked, run_launched
from tests.shortened import shortened
from tests.test_experiments import write_cifar, write_mnist

pytestmark = pytest.mark.slow

NOT_RUN = {
    "git clone https://github.com/diffusion-lit/diffusion-lit.git": "needs a network",
    "cd diffusion-lit": "changes the shell",
    "make setup": "installs",
    "source .venv/bin/activate": "changes the shell",
    "make test": "is this test, and all others",
    "pip install safetensors": "needs a network",
    "pip install wandb-workspaces": "needs a network",
    "pip install 'diffusion-lit[tensorboard]'": "needs a network",
    "python examples/wandb/workspace.py ENTITY diffusion-lit": "needs an account of W&B",
    "wandb sweep examples/wandb/sweep.yaml": "needs an account of W&B",
    "torchrun --nnodes M --nproc-per-node N --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m diffusion_lit.train "
    "trainer.devices=N trainer.num_nodes=M strategy=ddp": "needs several machines",
    "python benchmark/time_to_quality.py": "downloads MNIST, and trains for five minutes",
    "tensorboard --logdir outputs/train": "serves until it is stopped",
    "python -m diffusion_lit.export ckpt=outputs/train/RUN out=DIR push_to=OWNER/NAME private=false": "needs a network",
}
"""Lines that are not run, and why."""
IN_ORDER = ("docs/start.md", "docs/first_hour.md")
"""Documents whose commands build on each other: a test of their own runs these from top to bottom."""


def lines_to_run() -> dict[str, str]:
    """Each line with the first document that has it."""
    found: dict[str, str] = {}
    for document in PAGES:
        for line in [*command_lines(document), *commands_shown(document)]:
            if line not in NOT_RUN and not (document in IN_ORDER and COMMAND.search(line)):
                found.setdefault(line, document)
    return found


LINES = lines_to_run()
CLASSES = ("ant", "bee", "cat", "dog", "elk")


def write_image(path: Path, *shape: int) -> None:
    """Noise, [H, W] or [H, W, C]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int(path.stem)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def run(name: str, *arguments: str, cwd: Path, code: int = 0) -> str:
    done = run_forked(name, *arguments, cwd=cwd)
    assert done.returncode == code, f"{name} {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_openai(file: Path) -> None:
    """A small network of guided-diffusion with the flags beside it."""
    found = NETWORKS["adm_new_order"]
    file.with_suffix(".flags").write_text(found["flags"])
    torch.save(filled({name: torch.empty(shape, device="meta") for name, shape in found["weights"].items()}), file)


def write_pickle(folder: Path) -> None:
    """NVlabs/edm's checkout and a network of it, stand-ins: EDM, network-snapshot-200000.pkl."""
    (folder / "EDM").mkdir()
    (folder / "EDM" / "documents_stand_in.py").write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "EDM")
        network = importlib.import_module("documents_stand_in").EDMPrecond({"weight": torch.ones(1)}, {"resolution": 8})
        (folder / "network-snapshot-200000.pkl").write_bytes(pickle.dumps({"ema": network}))


def write_own_parts(folder: Path) -> None:
    """What docs/extending.md and docs/experiments.md have the reader write."""
    [code], [settings] = blocks("docs/extending.md", "python"), blocks("docs/extending.md", "yaml")
    (folder / "my_parts.py").write_text(code)
    (folder / "conf" / "schedule").mkdir(parents=True)
    own = settings.replace("diffusion_lit.schedule.logit.", "my_parts.")
    (folder / "conf" / "schedule" / "logit.yaml").write_text(own)
    (folder / "MY_CONF" / "experiment").mkdir(parents=True)
    (folder / "MY_CONF" / "experiment" / "my_recipe.yaml").write_text("# @package _global_\nseed: 1\n")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """What words of the documents stand for, in a folder whose name a shell and Hydra could misread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        yield make_places(tmp_path_factory.mktemp("places") / "the reader's = 1")


def make_places(root: Path) -> dict[str, Path]:
    for i in range(100):
        write_image(root / "images" / CLASSES[i % 5] / f"{i}.png", 20, 24, 3)
        write_image(root / "small" / f"{i}.png", 16, 16, 3)
    for i in range(40):
        write_image(root / "sprites" / f"{i}.png", 48, 64, 4)
        write_image(root / "tiles" / f"{i}.npy", 48, 64, 8)
    shutil.make_archive(str(root / "images"), "zip", root / "images")
    write_cifar(root / "torchvision")
    write_mnist(root / "torchvision")
    torch.manual_seed(0)
    layers = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4}
    AutoencoderKL(**layers, **sizes).save_pretrained(root / "autoencoder")
    places = {
        "FOLDER": root / "images",
        "IMAGENET/train": root / "images",
        "REAL_DIR": root / "small",
        "photos.zip": root / "images.zip",
        "cifar10-32x32.zip": root / "images.zip",
        "SPRITES": root / "sprites",
        "TILES": root / "tiles",
        "AUTOENCODER": root / "autoencoder",
        "TORCHVISION": root / "torchvision",
    }
    run(
        "prepare",
        f"source={root / 'images'}",
        f"out={root / 'prepared'}",
        "resolution=32",
        "val_fraction=0.2",
        cwd=root,
    )
    own = ["data=image_folder", f"data.root={root / 'images'}", "data.resolution=16", "callback=[default,power_ema]"]
    for name, settings in {"own": own, "another": own, "digits": ["data=digits"]}.items():
        run("train", *shortened("train", settings, places), f"hydra.run.dir={quote(str(root / name))}", cwd=root)
        if name in ("own", "another"):
            out = root / f"{name}'s"
            measured = ["ckpt=RUN", "metrics=[fid]"]
            run("evaluate", *shortened("evaluate", measured, {"RUN": root / name}), f"out={out}", cwd=root)
            places["ONE" if name == "own" else "OTHER"] = out
    write_openai(root / "64x64_diffusion.pt")
    run("export", f"ckpt={root / 'own'}", "format=diffusers", f"out={root / 'diffusers'}", cwd=root)
    drawn = root / "drawn"
    run(
        "sample",
        *shortened("sample", ["ckpt=RUN", "format=npz"], {"RUN": root / "own"}),
        f"out={drawn}",
        cwd=root,
    )
    return places | {
        **dict.fromkeys(("RUN", "RUN_OR_FILE", "outputs/train/RUN", "outputs/train/A", "A"), root / "own"),
        **dict.fromkeys(("ANOTHER_RUN", "outputs/train/B", "B"), root / "another"),
        "last.ckpt": root / "own" / "checkpoints" / "last.ckpt",
        "outputs/sample/RUN/samples.npz": next(drawn.glob("*.npz")),
        "64x64_diffusion.pt": root / "64x64_diffusion.pt",
        "FOLDER_OF_DIFFUSERS": root / "diffusers",
        "NAME": Path("digits"),
        "digits": root / "digits",
        "prepared": root / "prepared",
    }


def places_for(arguments: list[str], places: Mapping[str, Path]) -> dict[str, Path]:
    """DIR is read by some commands and made by others; a run may have to be one of digits."""
    found = dict(places)
    if "feature=classifier" in arguments:
        found |= dict.fromkeys(("RUN", "RUN_OR_FILE", "outputs/train/RUN"), places["digits"])
    if "against=FOLDER" in arguments:
        found["FOLDER"] = places["REAL_DIR"]
    return found if "out=DIR" in arguments else found | {"DIR": places["prepared"]}


def shell(line: str, folder: Path, code: int = 0) -> str:
    """What `bash` says of a line in a folder in which the checkout's own folders are."""
    for name in ("benchmark", "src"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_line(line: str, folder: Path, places: Mapping[str, Path]) -> None:
    """Run a line of a document in short.

    Raises:
        AssertionError: if it fails.
    """
    command = COMMAND.search(line)
    if line == "diffusion-lit":
        run("__main__", cwd=folder)
    elif line.startswith("eval "):
        name = "zsh" if "zsh" in line else "bash"
        if name == "zsh" and shutil.which("zsh") is None:
            pytest.skip("zsh is not installed")
        shell(line if name == "bash" else f"zsh -fc 'autoload -U compinit; compinit -u; {line}'", folder)
    elif line.startswith("make "):
        (folder / "outputs" / "train").mkdir(parents=True)
        (folder / "outputs" / "train" / "run").symlink_to(places["digits"])
        target, _, given = line.removeprefix("make ").partition(" ")
        words = [*shlex.split(given.removeprefix("ARGS=").strip('"')), *shortened(target, [], places)]
        make = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/.complete", f"BIN={Path(sys.executable).parent}"]
        failing = target == "check-digits"  # which says that a model of four steps does not draw digits
        said = shell(shlex.join([*make, target, f"ARGS={' '.join(words)}"]), folder, code=2 if failing else 0)
        assert "read as their label" in said or not failing, said
    elif command is None:
        shell(line, folder)
    elif ">" in line:
        assert json.loads(shell(line.replace("> docs/", "> "), folder) or (folder / "schema.json").read_text())
    else:
        name, arguments = command[1], shlex.split(command[2])
        arguments = shortened(name, arguments, places_for(arguments, places))
        if line.startswith("torchrun "):
            said = run_launched(name, *arguments, folders=[folder, folder])
            assert [code for code, _ in said] == [0, 0], said
        else:
            run(name, *arguments, cwd=folder)


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{document}: {line}") for line, document in LINES.items()])
def test_a_command_works(line: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder = 1"
    folder.mkdir()
    monkeypatch.setenv("DIFFUSION_LIT_DATA", str(places["TORCHVISION"]))
    monkeypatch.setenv("WANDB_MODE", "offline")
    if "--config-dir" in line:
        write_own_parts(folder)
        monkeypatch.syspath_prepend(folder)
    if "nvlabs_pickle" in line:
        write_pickle(folder)
    run_line(line, folder, places)


def test_lines_that_are_not_run_are_shown() -> None:
    shown = {line for document in PAGES for line in [*command_lines(document), *commands_shown(document)]}
    assert shown >= NOT_RUN.keys() and len(LINES) > 70


@pytest.mark.parametrize("document", IN_ORDER)
def test_every_command_of_the_first_hour_works(document: str, places: dict[str, Path], tmp_path: Path) -> None:
    """From top to bottom, as somebody new types them."""
    folder, made = tmp_path / "my images = 1", tmp_path / "outputs" / "first run"
    for i in range(120):
        write_image(folder / ("Kreise", "Sterne", "Würfel")[i % 3] / f"{i}.png", 20, 25, 3)
    results = [tmp_path / name / "evaluation.json" for name in ("A", "B")]
    own_places = {"RUN": made, "FOLDER": folder, "DIR": tmp_path / "prepared = 1", "TORCHVISION": places["TORCHVISION"]}
    own_places |= {f"{path.parent.name}/evaluation.json": path for path in results}
    count, trained, evaluated = 0, False, 0
    for line in command_lines(document):
        command = COMMAND.search(line)
        if command is None or not command[2]:
            continue
        name, typed = command[1], shlex.split(command[2])
        arguments, own, code = shortened(name, typed, own_places), [], 0
        if name == "train" and not trained and (document == "docs/start.md" or "data.root=FOLDER" in typed):
            own, trained = ["hydra.run.dir=outputs/first run"], True
        elif typed[0] == "compare":
            code = 1  # of other features
        elif name == "evaluate" and evaluated < len(results):
            own, evaluated = [f"out={results[evaluated].parent}"], evaluated + 1
        run(name, *arguments, *own, cwd=tmp_path, code=code)
        count += 1
    assert count > 8


def names_of_blocks() -> dict[str, Any]:
    """Names that a page's code takes for granted: those of the script that it points to, a network, and images."""
    names = runpy.run_path(str(ROOT / "examples" / "plain_objects.py"))
    data = names["DigitsData"](batch_size=16)
    sizes = {"resolution": 8, "image_channels": 1, "num_classes": 10, "channels": 8, "num_groups": 4}
    network = names["UNet"](**sizes, channel_multipliers=(1,), num_res_blocks=1, attention_resolutions=())

    def trainer(**settings: Any) -> Any:
        short = {"max_steps": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        return names["Trainer"](**settings | short)

    return {**names, "dl": dl, "network": network, "data": data, "Trainer": trainer}


@pytest.mark.parametrize("document", ["README.md", "docs/library.md", "docs/run_folder.md"])
def test_python_on_a_page_runs(
    document: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block after block, as in a notebook. Blocks of other pages are run by `test_docs`."""
    monkeypatch.chdir(tmp_path)
    digits = {**places, **dict.fromkeys(("outputs/train/RUN", "RUN"), places["digits"])}
    train, evaluate, load = dl.train, dl.evaluate, dl.load
    monkeypatch.setattr(dl, "train", lambda settings: train(shortened("train", settings, digits)))
    monkeypatch.setattr(dl, "evaluate", lambda settings: evaluate(shortened("evaluate", settings, digits)))
    monkeypatch.setattr(dl, "load", lambda path: load(digits.get(path, path)))
    names, found = names_of_blocks(), blocks(document, "python")
    assert found
    for block in found:
        exec(block, names)
