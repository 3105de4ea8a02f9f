"""A trained model goes out and comes back, the same to the bit or refused; a folder is whole, or not there."""

import json
import re
import signal
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import diffusion_lit as dl
from diffusion_lit.condition import Condition
from diffusion_lit.deployment import hub
from diffusion_lit.deployment.folder import RECORD, check_place
from diffusion_lit.deployment.places import short
from diffusion_lit.exporting import export
from diffusion_lit.loading import content_of
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.terminal.interruption import Interrupted
from tests.launch import read_by_bash, run_forked
from tests.strangers import checkpoint, saved

FILES = {"safetensors": {"model.safetensors", "config.json", "README.md", RECORD}}


def settings(*overrides: str) -> Any:
    """conf/export.yaml with overrides."""
    from hydra import compose, initialize_config_dir

    from diffusion_lit.command_line.command import CONFIG_FOLDER
    from diffusion_lit.command_line.shell import read_arguments

    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("export", read_arguments(overrides))


def exported(*overrides: str) -> Path:
    return export(settings(*overrides), overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a checkpoint alone, in a folder with a space and an = in its name."""
    folder = tmp_path_factory.mktemp("runs") / "a run=1"
    (folder / "checkpoints").mkdir(parents=True)
    good = checkpoint("label_dropout=0.1")
    (folder / "config.yaml").write_text("seed: 0\n")
    raw = {name: weight + 0.01 for name, weight in good["state_dict"].items()}
    good |= {"state_dict": raw, "class_counts": [20 + i for i in range(10)], "versions": {"torch": "2"}}
    (folder / "checkpoints" / "last.ckpt").write_bytes(saved(good))
    return folder


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_an_export_is_the_model_to_the_bit(run: Path, weights: str, tmp_path: Path) -> None:
    out = exported(f"ckpt={run}", f"out={tmp_path / 'out = x'}", f"weights={weights}")
    assert {path.name for path in out.iterdir()} == FILES["safetensors"]
    before, after = (dl.load(path, weights=weights) for path in (run, out))
    assert torch.equal(before.sample(4, num_steps=3, guidance=2), after.sample(4, num_steps=3, guidance=2))
    assert (after.step, after.class_names) == (3, before.class_names)
    record = json.loads((out / RECORD).read_text())
    assert record["weights"] == weights and record["versions"]["diffusion-lit"] == dl.__version__
    again = exported(f"ckpt={out}", f"weights={weights}", f"out={tmp_path / 'again'}")
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_what_is_printed_can_be_pasted(
    run: Path, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command after an export, and those of the card."""
    out = exported(f"ckpt={run}", f"out={tmp_path / 'a b=c'}", f"weights={weights}")
    named = [] if weights == "ema" else [f"weights={weights}"]
    [printed] = re.findall(r"^  (.*python.* -m diffusion_lit\.sample.*)$", capsys.readouterr().out, re.MULTILINE)
    card = (out / "README.md").read_text()
    [shown] = re.findall(r"```sh\n(.*)\n```", card)
    assert read_by_bash(printed) == ["-m", "diffusion_lit.sample", f"ckpt={out}", *named]
    assert read_by_bash(shown) == ["-m", "diffusion_lit.sample", "ckpt=.", *named]
    assert not [file for file in out.rglob("*") if file.is_file() and str(tmp_path).encode() in file.read_bytes()]
    monkeypatch.chdir(out.rename(tmp_path / "elsewhere"))
    drawn = dl.sample([*read_by_bash(shown)[2:], "num_samples=4", "sampler.num_steps=2", f"out={tmp_path / 'x'}"])
    assert (drawn / "grid.png").is_file()
    [code] = re.findall(r"```python\n(import diffusion_lit(?:.|\n)*?)```", card)
    names: dict[str, Any] = {}
    exec(code.replace("sample(16)", "sample(2, num_steps=2)"), names)
    assert names["images"].shape == (2, 8, 8, 1)


def test_a_precision_may_be_a_number(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(saved(checkpoint("trainer.precision=32")))
    out = exported(f"ckpt={tmp_path / 'x.ckpt'}", f"out={tmp_path / 'out'}")
    assert dl.load(out).models.precision == "32-true"


def test_the_card_says_what_is_known(run: Path, tmp_path: Path) -> None:
    """And states an evaluation of these very weights alone."""
    generated = {"ckpt": content_of(str(run)), "weights": "ema", "guidance": 2.0, "guide": "a1" * 32}
    generated["sampler"] = {"num_steps": 50}
    real, training = (
        {"root": "/home/me", "files": "/home/me/x.zip"},
        {"split": "train", "count": 288, "root": "data/me"},
    )
    fid = {"name": "fid", "reference": "home/me.npz", "reference_sha256": "b2" * 32}
    protocol = {"num_generated": 180, "real": real, "training": training, "extractors": {}, "metrics": {"fid": fid}}
    figure = {"value": 8.5, "better": "lower", "feature": "pixels"}
    record = {"protocol": {**protocol, "generated": generated}, "results": [{"cell": {}, "figures": {"fid": figure}}]}
    place = run / "evaluation.json"
    place.write_text(json.dumps(record))
    try:
        card = (exported(f"ckpt={run}", f"out={tmp_path / 'a'}", "license=apache-2.0") / "README.md").read_text()
        raw = (exported(f"ckpt={run}", f"out={tmp_path / 'b'}", "weights=raw") / "README.md").read_text()
        with pytest.raises(ValueError, match="is not of these weights: it measured another checkpoint"):
            exported(f"ckpt={run}", f"out={tmp_path / 'c'}", "weights=raw", f"evaluation={place}")
    finally:
        place.unlink()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: diffusion-lit\n")
    for text in (
        "LinearSchedule",
        "UNet (",
        "images, 1 x 8 x 8",
        "averaged weights after 3 training steps",
        "0 (20)",
    ):
        assert text in card, text
    assert "| fid | 8.5 | pixels features, lower is better |" in card and "num_generated: 180" in card
    for text in ("guidance: 2.0", f"guide: {'a1' * 32}", f"ckpt: {content_of(str(run))}", "training.count: 288"):
        assert f"generated.{text}" in card or text in card, text
    assert f"metrics.fid.reference_sha256: {'b2' * 32}" in card
    assert "home/me" not in card and "data/me" not in card and "245" in card
    assert "the raw weights" in raw and "No evaluation of these weights is known." in raw and "license" not in raw


def test_a_table_has_names_on_the_hub_and_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "images").mkdir(parents=True)
    kept = {"_target_": "diffusion_lit.data.HuggingFaceData", "name": "uoft-cs/cifar10", "resolution": 32}
    for place in ({"root": "data"}, {"urls": ["a.tar", "b.tar"]}, {"latents": "~/vae"}, {"of_my_own": "/home/me/x"}):
        assert short({**kept, **place}) == kept
    assert short({**kept, "name": "mine/images"}).keys() == {"_target_", "resolution"}


def test_a_folder_is_whole_or_not_there(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    exported(f"ckpt={run}", f"out={out}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        ValueError, match=r"has an export in it: choose another out=, or replace it with overwrite=true"
    ):
        exported(f"ckpt={run}", f"out={out}")

    def stopped(card: object) -> str:
        signal.raise_signal(signal.SIGTERM)
        return ""

    with monkeypatch.context() as patch:
        patch.setattr("diffusion_lit.exporting.model_card", stopped)
        with pytest.raises(Interrupted, match="nothing was written to"):
            exported(f"ckpt={run}", f"out={out}", "overwrite=true")
        with pytest.raises(Interrupted, match=r"Continue with\n.*diffusion_lit\.export"):
            exported(f"ckpt={run}", f"out={tmp_path / 'new'}")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for left in (".out.123.partial", ".out.123.partial.former"):  # of a process that was killed
        (tmp_path / left).mkdir()
    exported(f"ckpt={run}", f"out={out}", "overwrite=true", "weights=raw")
    assert json.loads((out / RECORD).read_text())["weights"] == "raw"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"has something in it that was not exported \(notes.txt\)"):
        exported(f"ckpt={run}", f"out={out}", "overwrite=true")


@pytest.mark.parametrize("mine", ["notes.txt", "unet/notes.txt", "unet/mine"])
def test_what_is_not_of_an_export_is_never_removed(mine: str, tmp_path: Path) -> None:
    """Wherever in its folder it lies."""
    (tmp_path / "unet").mkdir()
    for name in ("README.md", "unet/config.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / RECORD).write_text('{"files": ["README.md", "unet/config.json"]}')
    check_place(tmp_path, overwrite=True)
    (tmp_path / mine).write_text("mine") if mine.endswith("txt") else (tmp_path / mine).mkdir()
    with pytest.raises(ValueError, match=rf"has something in it that was not exported \({mine}\)"):
        check_place(tmp_path, overwrite=True)


def test_an_export_does_not_take_the_place_of_where_it_is_started(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for out in (".", "..", "/", "c/..", str(tmp_path)):
        with pytest.raises(
            ValueError, match=r"is the folder that this command was started in, or has it inside.*out=model"
        ):
            exported(f"ckpt={run}", f"out={out}")
    assert exported(f"ckpt={run}", "out=c/../d/") == Path("d") and (tmp_path / "a" / "b" / "d" / RECORD).is_file()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


WRONG = {
    "format=pickle": "format=pickle is none of safetensors, diffusers, onnx, torch_export",
    "num_steps=3": "num_steps=3 would be ignored",
    "++num_steps=3": "num_steps=3 would be ignored",
    "private=false": "private=False would be ignored without push_to",
    "push_to=name": "push_to=name is not a name on the Hub: give push_to=OWNER/NAME",
    "'license=a b'": "license=a b is not an identifier",
    "weights=other": "has no weights named other; use weights=ema or raw",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_setting_is_refused_before_there_is_work(run: Path, override: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(WRONG[override])):
        exported(f"ckpt={run}", f"out={tmp_path / 'out'}", override.strip("'"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("answer", ["yes", "no", "another"])
def test_a_folder_goes_to_the_hub(
    run: Path,
    private: bool,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where it is seen by whom it is meant for, which one that is there already may not be."""
    asked: list[Any] = []

    def create_repo(name: str, **options: Any) -> None:
        asked.append((name, options))
        if answer == "no":
            raise ConnectionError("no network\nat all")

    info = SimpleNamespace(private=private == (answer != "another"))
    stub = SimpleNamespace(create_repo=create_repo, upload_folder=lambda **options: asked.append(options))
    stub.model_info = lambda name: info
    monkeypatch.setattr(hub, "require", lambda *_: stub)
    given = (f"ckpt={run}", f"out={tmp_path / 'a b'}", "push_to=me/model", *([] if private else ["private=false"]))
    if answer != "yes":
        with pytest.raises(ValueError, match=r"a b is written, and was not uploaded") as error:
            exported(*given)
        said, folder = str(error.value), tmp_path / "a b"
        if answer == "no":
            assert "to me/model (ConnectionError: no network)" in said
            assert said.endswith(f"\n  hf upload me/model '{folder}'{' --private' * private}")
        else:
            assert f"private={str(private).lower()} is for {'its owner' if private else 'everybody'}. " in said
        assert (folder / RECORD).is_file() and len(asked) == 1
        return
    out = exported(*given)
    assert "https://huggingface.co/me/model" in capsys.readouterr().out
    assert asked[0] == ("me/model", {"private": private, "exist_ok": True}) and asked[1]["folder_path"] == out
    card = (out / "README.md").read_text()
    assert "hf download me/model --local-dir model\npython -m diffusion_lit.sample ckpt=model" in card


@pytest.mark.slow
def test_what_rewrites_a_graph_says_nothing(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    done = run_forked("export", f"ckpt={run}", "out=out", "format=onnx", "num_steps=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and "run beside the model" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_a_graph_draws_what_the_model_draws(
    run: Path, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program of its card, which needs nothing of this project, has the images of our DDIM from the same noise."""
    if format == "onnx":
        pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    out = exported(f"ckpt={run}", f"out={tmp_path / 'out'}", f"format={format}", "num_steps=4")
    assert re.search(r"/out: run beside the model, they differ by at most (0|\d+e-0[5-9])\n", capsys.readouterr().out)
    [code] = re.findall(r"```python\n(import json(?:.|\n)*?)```", (out / "README.md").read_text())
    names: dict[str, Any] = {}
    with chdir(out):
        exec(code, names)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 1, 8, 8), dtype=np.float32))
    denoiser = dl.load(run, device="cpu").denoiser
    expected = DDIMSampler(4, clip=1.0)(denoiser, lambda: noise, Condition(torch.arange(4)))
    torch.testing.assert_close(torch.from_numpy(names["images"]), expected, rtol=0, atol=1e-4)
