"""The package as a library, with parts that are not in it: what calls return, leave behind, and refuse."""

import ast
import importlib
import inspect
import io
import json
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import wandb
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

import diffusion_lit as dl
from diffusion_lit import training
from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.command_line import shell
from diffusion_lit.data import DigitsData
from diffusion_lit.page.commands import commands_of
from diffusion_lit.run.past import read_run
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.terminal.interruption import Interrupted
from tests.documents import blocks
from tests.launch import ROOT, TINY, read_by_bash

EXAMPLE = ROOT / "examples" / "own_parts"
SMALL = (
    *("experiment=shapes", "model.channels=8", "model.depth=1", "data.num_images=60", "data.batch_size=20"),
    *("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu"),
    *("trainer.num_sanity_val_steps=0", "callback.weight_norm.every_n_steps=1", "callback.fid=null"),
    *("callback.sample_grid=null", "sampler.num_steps=2", "optimizer.lr=0.05"),
)


@dataclass(frozen=True)
class Trained:
    run: dl.Run
    folder: Path
    said: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The example's own parts, trained from a thread: as a web server or an editor would, without signals."""
    folder = tmp_path_factory.mktemp("a library, lr=0.05")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.syspath_prepend(EXAMPLE)
        settings = [*SMALL, f"output_root={folder}"]
        with ThreadPoolExecutor(1) as thread:
            run = thread.submit(dl.train, settings, config_dir=EXAMPLE / "conf").result()
        yield Trained(run, folder, said.getvalue())


def test_importing_loads_nothing() -> None:
    """No clock, which would be at the mercy of the machine: what takes the time is torch, Lightning and Hydra."""
    heavy = ("torch", "lightning", "hydra", "omegaconf", "numpy", "PIL")
    code = f"import sys, diffusion_lit as dl; dir(dl); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_stays() -> None:
    assert set(dl.HOMES) == set(dl.__all__) <= set(dir(dl))
    for name in ("train", "sample", "evaluate", "export"):
        importlib.reload(importlib.import_module(f"diffusion_lit.{name}"))
        sys.modules.pop(f"diffusion_lit.{name}")
        importlib.import_module(f"diffusion_lit.{name}")  # sets the attribute of the package
    assert all(callable(getattr(dl, name)) for name in dl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        dl.trian  # noqa: B018


def test_a_run_says_what_became_of_it(trained: Trained) -> None:
    run = trained.run
    assert run.step == 2 and run.folder.parent == trained.folder / "train"
    assert {"val/loss", "train/loss", "weights/norm"} <= run.figures.keys()
    assert len([row for row in run.history if "weights/norm" in row]) == 2
    parts = run.model.denoiser
    assert [type(part).__module__ for part in (parts.network, parts.schedule)] == ["shapes.network", "shapes.schedule"]
    assert run.model.class_names == ["disc", "square", "triangle"] and run.model.step == 2
    assert "3 classes" in repr(run.model)


def test_printed_commands_find_own_parts(trained: Trained) -> None:
    sample, train = (line.split("-m diffusion_lit.")[1] for line in trained.said.splitlines() if "-m diffusion" in line)
    assert sample.startswith("sample ") and "'allow=[shapes]'" in sample and "--config-dir" not in sample
    assert "'allow=[shapes]'" in train and f"--config-dir={EXAMPLE / 'conf'}" in train
    again = dict(commands_of(read_run(trained.run.folder)))
    label = f"Train it again, with configurations of {EXAMPLE / 'conf'}: read these first if they are not yours"
    assert f"--config-dir={EXAMPLE / 'conf'}" in again[label] and "experiment=shapes" in again[label]


def test_the_report_s_commands_work_with_own_parts(trained: Trained, tmp_path: Path) -> None:
    run, conf = trained.run.folder, EXAMPLE / "conf"
    commands = [(text, line) for text, line in commands_of(read_run(run)) if "diffusion_lit" in line]
    said = {text.partition(",")[0]: (text, line) for text, line in commands}
    words = {purpose: read_by_bash(line.rpartition("&& ")[2])[2:] for purpose, (_, line) in said.items()}
    label, line = said["Train on"]
    assert line.startswith("cd ") and "classes of shapes and configurations of" in label and "not yours" in label
    assert words["Draw from it"] == words["Evaluate it"] == [f"ckpt={run}", "allow=[shapes]"]
    resume = [word for word in words["Train on"] if not word.startswith("trainer.max_steps=")]
    assert resume == [f"resume={run}", "allow=[shapes]", f"--config-dir={conf}"]
    with pytest.raises(ValueError, match=r"was trained with experiment/shapes, .* --config-dir=FOLDER"):
        dl.train(resume[:2])
    longer = dl.train([*resume[:2], "trainer.max_steps=3", f"output_root={tmp_path}"], config_dir=conf)
    assert longer.step == 3
    shell.OWN_PACKAGES.clear()
    dl.sample([*words["Draw from it"], "num_samples=1", f"out={tmp_path / 'drawn'}"])


def test_a_second_run_continues_the_first_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    handlers, filters, shown = signal.getsignal(signal.SIGINT), warnings.filters[:], warnings.showwarning
    settings = [f"resume={trained.run.folder}", "allow=[shapes]", f"output_root={tmp_path}"]
    longer = dl.train([*settings, "trainer.max_steps=3"], config_dir=EXAMPLE / "conf")
    assert longer.step == 3 and longer.folder != trained.run.folder and len(longer.history) >= 3
    finished = dl.train(settings, config_dir=EXAMPLE / "conf")
    assert (finished.folder, finished.step) == (trained.run.folder, 2)
    assert finished.figures["val/loss"] == pytest.approx(trained.run.figures["val/loss"])
    assert not GlobalHydra.instance().is_initialized() and not HydraConfig.initialized()
    assert (signal.getsignal(signal.SIGINT), warnings.filters[:], warnings.showwarning) == (handlers, filters, shown)
    logging.captureWarnings(True)  # does nothing while it is on
    assert warnings.showwarning != shown
    logging.captureWarnings(False)


def test_a_run_that_began_with_weights_is_found_again(tmp_path: Path) -> None:
    """By the network that it was given, which its command line does not name."""
    common = [*TINY, "trainer.max_steps=1", "callback.fid=null", "callback.sample_grid=null", f"output_root={tmp_path}"]
    source = dl.train(common)
    own = [setting for setting in common if not setting.startswith("model.")]
    first, again = (dl.train([*own, "seed=1", f"init={source.folder}", "resume=auto"]) for _ in range(2))
    assert first.folder == again.folder != source.folder and first.step == again.step == 1


def test_a_model_draws_what_the_command_draws(trained: Trained) -> None:
    model, out = trained.run.model, trained.folder / "drawn"
    settings = ["num_samples=5", "offset=1", "seed=3", "labels=[disc,2]", "guidance=2", "device=cpu", f"out={out}"]
    own = [f"ckpt={trained.run.folder}", "allow=[shapes]", "sampler=heun", "sampler.num_steps=2", "format=[npz,grid]"]
    assert dl.sample([*own, *settings]) == out
    arguments = {"labels": ["disc", 2], "sampler": "heun", "num_steps": 2, "guidance": 2, "seed": 3, "offset": 1}
    images = model.sample(5, **arguments)
    with np.load(out / "samples.npz") as file:
        assert images.dtype == torch.uint8 and (images.numpy() == file["arr_0"]).all()
    assert (np.asarray(model.grid(5, **arguments)) == np.asarray(Image.open(out / "grid.png"))).all()
    assert model.grid(4, num_steps=2, columns=4).width > model.grid(4, num_steps=2, columns=2).width
    own_sampler = model.sample(3, labels=torch.tensor([1]), sampler=DDIMSampler(2, clip=1.0), seed=1)
    assert torch.equal(own_sampler, model.sample(3, labels=1, num_steps=2, seed=1))


def test_a_model_refuses_what_it_cannot_do(trained: Trained) -> None:
    with pytest.raises(ValueError, match=r"sampler='dimm' is none of ddim, ddpm"):
        trained.run.model.sample(1, sampler="dimm")
    with pytest.raises(ValueError, match="leave num_steps=3 out"):
        trained.run.model.sample(1, sampler=DDIMSampler(2), num_steps=3)
    with pytest.raises(ValueError, match="num_images and batch_size of at least 1"):
        trained.run.model.sample(0)
    with pytest.raises(ValueError, match=r"add allow=\[shapes\.network\]"):
        dl.load(trained.run.folder)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        dl.load(trained.folder / "nothing")


def test_classes_that_python_does_not_find_are_answered(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine, to which the checkpoint alone was sent."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(EXAMPLE)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=r"shapes\.network cannot be imported .*PYTHONPATH=FOLDER"):
        dl.load(trained.run.folder, allow=["shapes"])
    with pytest.raises(ValueError, match=r"No module named 'shapes'.*PYTHONPATH=FOLDER"):
        dl.train(["data=shapes", f"output_root={trained.folder}"], config_dir=EXAMPLE / "conf")


def test_a_network_s_configuration_must_take_what_the_data_is() -> None:
    cfg = OmegaConf.create({"model": {"_target_": "mine.Net", "image_channels": "auto", "resolution": "auto"}})
    with pytest.raises(
        ValueError, match=r"configuration of mine\.Net has no num_classes: let it say num_classes: auto"
    ):
        fit_model_to_data(cfg, DigitsData())


def test_evaluation_gives_its_figures(trained: Trained) -> None:
    out = trained.folder / "evaluated"
    settings = ["against=val", "num_samples=6", "sampler.num_steps=1", "feature=pixels", "metrics=fid", "floor=false"]
    own = [f"ckpt={trained.run.folder}", "allow=[shapes]", "device=cpu", f"cache={trained.folder}", f"out={out}"]
    found = dl.evaluate([*own, *settings])
    [result] = json.loads((out / "evaluation.json").read_text())["results"]
    assert found.folder == out and found.figures == {"fid": result["figures"]["fid"]["value"]}
    with pytest.raises(ValueError, match="2 combinations"):
        _ = dl.Evaluation(out, found.results * 2).figures


def test_a_model_is_exported(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "a model, lr=0.05"
    own = [f"ckpt={trained.run.folder}", "allow=[shapes]", "format=safetensors", f"out={out}"]
    assert dl.export(own) == out
    assert dl.load(out, allow=["shapes"]).step == trained.run.step


def test_the_program_s_own_processes_and_run_stay(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a program that logs to W&B what calls return."""
    ended: list[str] = []
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", lambda: ended.append("run"))
    monkeypatch.setenv("MASTER_ADDR", "theirs")
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    settings = [f"ckpt={trained.run.folder}", "allow=[shapes]", "num_samples=1", "sampler.num_steps=1", "device=cpu"]
    try:
        dl.sample([*settings, f"out={tmp_path / 'drawn'}"])
        with pytest.raises(ValueError, match="num_samples"):
            dl.sample([*settings, "num_samples=0"])
        assert dist.is_initialized() and os.environ["MASTER_ADDR"] == "theirs" and not ended
    finally:
        dist.destroy_process_group()
    monkeypatch.setattr(wandb, "run", None)
    dl.sample([*settings, f"out={tmp_path / 'drawn again'}"])
    assert ended == ["run"] and "MASTER_ADDR" not in os.environ


MISTAKES = {
    "text": ("schedule=cosine", "takes a list of settings"),
    "option": (["-m", "seed=1,2"], "-m is for the command line"),
    "choice of a list": (["logger=[csv,tensorbord]"], "tensorbord: did you mean logger=tensorboard"),
    "key": (["trainer.max_stepz=5"], "max_stepz"),
    "argument": (["+data.shuffle=true"], "shuffle"),
    "processes": (["trainer.devices=2", "seed=1"], r"diffusion_lit\.train .*trainer\.devices=2 seed=1\n.*torchrun"),
}


@pytest.mark.parametrize("overrides, words", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_errors_with_the_command_s_words(overrides: list[str], words: str, tmp_path: Path) -> None:
    """Within a program that uses Hydra itself, whose state they leave as it is, and has a log of its own."""
    handlers = logging.getLogger().handlers[:]
    root = [] if isinstance(overrides, str) else [f"output_root={tmp_path}"]
    (tmp_path / "theirs.yaml").write_text("key: 1")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        with pytest.raises(ValueError, match=f"(?s){words}"):
            dl.train(overrides if isinstance(overrides, str) else [*root, *overrides])
        assert compose("theirs").key == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "theirs.yaml"]
    assert not list(tmp_path.glob("train/*")) and logging.getLogger().handlers == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_is_what_python_programs_know(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted(number, tmp_path / "run")

    monkeypatch.setattr(training, "train", stop)
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(expected) as caught:
        dl.train([f"output_root={tmp_path}"])
    if number == signal.SIGINT:
        assert f"resume={tmp_path / 'run'}" in str(caught.value)
    else:
        assert caught.value.code == 143


def test_plain_objects_train_too(monkeypatch: pytest.MonkeyPatch) -> None:
    images = runpy.run_path(str(ROOT / "examples" / "plain_objects.py"))["main"](max_steps=2, channels=8)
    assert images.shape == (20, 1, 8, 8) and images.dtype == torch.uint8 and images.float().std() > 1


@pytest.mark.parametrize("file", ["README.md", "docs/library.md", "examples/own_parts/README.md"])
def test_documents_name_what_there_is(file: str) -> None:
    """Their code is Python, and uses names of the package and arguments of its calls."""
    text = (ROOT / file).read_text()
    calls = set(re.findall(r"\bdl\.(\w+)", text))
    assert calls and calls <= set(dl.__all__)
    for block in blocks(file, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                known = {"sample": dl.TrainedModel.sample, "grid": dl.TrainedModel.grid, "load": dl.load}
                if node.func.attr in known:
                    taken = inspect.signature(known[node.func.attr]).parameters
                    assert {keyword.arg for keyword in node.keywords} <= taken.keys()


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebooks_are_small_and_show_no_error(file: Path) -> None:
    book = json.loads(file.read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data"}
    assert sum("image/png" in output["data"] for output in outputs) == 1 and file.stat().st_size < 100_000
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    names = {name for cell in cells for name in re.findall(r"\bdl\.(\w+)", "".join(cell["source"]))}
    assert names <= set(dl.__all__) and "train" in names


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebooks_run(file: Path, tmp_path: Path) -> None:
    """In a kernel of their own, with a cell of other settings in place of the one that has them."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.read(file, as_version=4)
    [settings] = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    size = "'data.resolution=8'," if "data.resolution" in settings.source else ""
    steps = "'trainer.max_steps=2', 'trainer.val_check_interval=2'"
    settings.source = f"settings = [{size} {steps}, 'model.channels=8', 'callback.fid=null']"
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(list(tmp_path.glob("outputs/train/*/checkpoints/last.ckpt"))) == 1


@pytest.fixture(autouse=True)
def no_own_packages() -> Iterator[None]:
    yield
    shell.OWN_PACKAGES.clear()
