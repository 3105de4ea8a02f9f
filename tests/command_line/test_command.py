"""The commands as a user types them: help, mistakes, samples."""

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf
from PIL import Image

from diffusion_lit.command_line.catalogue import members
from diffusion_lit.command_line.command import command
from diffusion_lit.command_line.mistake import explain
from diffusion_lit.command_line.shell import quote
from diffusion_lit.sampling import sample
from tests.hydra_shortcuts import composed
from tests.launch import PATIENCE, ROOT, TINY, Forked, run_command, run_forked, run_launched, train_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional model, hastily trained."""
    folder = tmp_path_factory.mktemp("run")
    train_in(folder, "trainer.max_steps=5", "optimizer.lr=0.05", "callback.fid=null", "callback.sample_grid=null")
    return folder


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unconditional")
    options = ("callback.fid=null", "callback.sample_grid=null", "callback.ema=null", "model.num_classes=null")
    train_in(folder, "trainer.max_steps=1", "schedule.num_timesteps=500", *options)
    return folder


def sampled(run: Path, out: Path, *options: str) -> Path:
    """What the command writes into `out`, sooner: in this process."""
    overrides = [f"ckpt={quote(str(run))}", f"out={quote(str(out))}", *options]
    sample(composed(overrides, "sample"), overrides)
    return out


def refusal(run: Path, out: Path, *options: str) -> str:
    """The message with which the command ends, by its code 1 and without a traceback, as every mistake is explained."""
    with pytest.raises(ValueError) as caught:
        sampled(run, out, *options)
    message = explain(caught.value)
    assert message is not None
    return message


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(folder / "samples.npz") as file:
        return file["arr_0"], file.get("arr_1")


def test_a_reader_that_leaves_costs_nothing_of_the_work(run: Path, tmp_path: Path) -> None:
    """`sample ... | head -0`: as with a reader, but for what would have been said."""
    reader, writer = os.pipe()
    os.close(reader)
    settings = [f"ckpt={run}", "out=drawn", "num_samples=2", "format=[png,grid]", "sampler.num_steps=1"]
    for name, given in (("sample", settings), ("inspect", ["data=digits", "out=seen"]), ("sample", ["--help"])):
        command = [sys.executable, "-m", f"diffusion_lit.{name}", *given]
        with (tmp_path / "errors").open("w") as errors:
            assert Forked(command, tmp_path, dict(os.environ), writer, errors.fileno()).wait(PATIENCE) == 0, name
        assert (tmp_path / "errors").read_text() == ""
    os.close(writer)
    assert (tmp_path / "drawn" / "grid.png").is_file() and (tmp_path / "seen" / "contact_sheet.png").is_file()


HELP = {
    "train": ["schedule", "parameterization", "loss", "model", "data", "sampler", "experiment", "strategy"],
    "sample": ["sampler"],
    "plot": ["schedule", "sampler"],
    "evaluate": ["sampler", "feature", "metrics"],
    "report": [],
}


@pytest.mark.parametrize("name", HELP)
def test_help_shows_the_groups_and_examples(name: str, tmp_path: Path) -> None:
    done = run_forked(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"python -m diffusion_lit.{name}") >= 3
    assert "A path is the text that is typed" in done.stdout
    said = " ".join(done.stdout.split())
    for group in HELP[name]:
        for member in members(group):
            assert re.search(rf"[ *] {member} +\S", done.stdout), member
    assert "out=" in said or "output_root=" in said


@pytest.mark.parametrize("option", ["--help", "--cfg=job"])
def test_answers_without_loading_torch(option: str, tmp_path: Path) -> None:
    """What takes the time is torch and Lightning; a clock would be at the mercy of the machine."""
    (tmp_path / "torch.py").write_text("raise ImportError('torch was loaded')")
    (tmp_path / "lightning.py").write_text("raise ImportError('lightning was loaded')")
    done = run_command(
        "train",
        *option.split("="),
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert "schedule" in done.stdout


def test_started_processes_run_this_checkout(tmp_path: Path) -> None:
    """And not whatever version of the package is installed."""
    where = [sys.executable, "-c", "import diffusion_lit; print(diffusion_lit.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(ROOT / "src")


def write_images(folder: Path, count: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.new("RGB", (12, 12), (40 * i, 0, 0)).save(folder / f"{i}.png")


MISTAKES = {
    "unknown choice": (["train", "schedule=cosin"], "cosine"),
    "value out of range": (["train", "schedule.beta_max=2"], "beta_max"),
    "eps where no signal is left": (["train", "schedule=flow", "parameterization=eps"], "parameterization=v"),
    "weighting that the loss ignores": (["train", "loss=vlb", "loss.variance=small", "weighting=p2"], "weighting=unit"),
    "variance without an output": (["train", "loss=hybrid", "parameterization=eps"], "model.learn_variance=true"),
    "chain of a flow": (["train", "schedule=flow", "sampler=ddpm"], "sampler=ddim"),
    "no gpu": (["train", "trainer.devices=4", "trainer.accelerator=gpu"], "trainer.accelerator=cpu"),
    "folder without images": (["train", "data=image_folder", "data.root=empty"], "no images in empty"),
    "missing folder": (["train", "data=image_folder", "data.root=nowhere"], "nowhere is not a folder"),
    "unreadable image": (["train", "data=image_folder", "data.root=broken", "data.resolution=8"], "broken/text.png"),
    "truncated image": (
        ["train", "data=image_folder", "data.root=truncated", "data.resolution=8", "callback.fid=null"],
        "jpg\n(OSError: image file is truncated",
    ),
    "resolution that does not fit": (
        ["train", "data=image_folder", "data.root=images", "data.resolution=30"],
        "28 and 32 are",
    ),
    "no folder": (["plot", "out=null"], "give one, out=FOLDER"),
    "more steps than T": (["train", "sampler.num_steps=2000"], "between 1 and 1000"),
    "dataset that is not there": (["train", "data=mnist", "data.root=nowhere", "data.download=false"], "data.root="),
    "missing inception weights": (["train", "feature=inception", "feature.weights=nowhere.pth"], "nowhere.pth"),
    "damaged inception weights": (
        ["train", "feature=inception", "feature.weights=images/0.png"],
        "images/0.png is damaged",
    ),
    "resume from nothing": (["train", "resume=outputs/nowhere"], "outputs/nowhere does not exist"),
    "missing checkpoint": (["sample", "ckpt=outputs/nowhere"], "outputs/nowhere does not exist"),
    "not a checkpoint": (["sample", "ckpt=images/0.png"], "images/0.png is not a checkpoint"),
    "override that contradicts the checkpoint": (["sample", "ckpt=x", "schedule=cosine"], "schedule"),
    "no such device": (["sample", "ckpt=images/0.png", "device=cuda"], "device=cuda"),
}


@pytest.mark.parametrize("args, words", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_user_error_is_reported_on_one_screen(args: list[str], words: str, tmp_path: Path) -> None:
    if torch.cuda.is_available() and ("gpu" in args[-1] or "cuda" in args[-1]):
        pytest.skip("there is a GPU")
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "images")
    write_images(tmp_path / "broken")
    (tmp_path / "broken" / "text.png").write_text("not an image")
    (tmp_path / "truncated").mkdir()
    for i in range(4):
        path = tmp_path / "truncated" / f"{i}.jpg"
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:1200])
    name, *overrides = args
    if name == "train" and not any("feature=" in override for override in overrides):
        overrides.append("feature=pixels")  # another takes a second to build
    done = run_forked(name, *overrides, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -9)
    assert words in said.replace(str(tmp_path) + "/", "")
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 24


TAKEN = {
    "plot": (
        ["schedule=vp", "out=out"],
        "schedules.png",
        "another (out=DIR), and run the same command again",
    ),
    "prepare": (["source=images", "out=out", "resolution=8"], ".prepare/plan", "Finished shards are kept"),
    "train": ([*TINY, "hydra.run.dir=out"], "config.yaml", "(hydra.run.dir=DIR), and continue with resume=auto"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_that_cannot_be_written_is_named_with_how_to_go_on(name: str, tmp_path: Path) -> None:
    args, taken, remedy = TAKEN[name]
    write_images(tmp_path / "images")
    (tmp_path / "out" / taken).mkdir(parents=True)
    done = run_forked(name, *args, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{taken} cannot be written (Is a directory)" in done.stderr and remedy in done.stderr, done.stderr


def test_a_run_whose_picture_cannot_be_written_is_continued_by_its_name(tmp_path: Path) -> None:
    """Wherever its folder is: resume=auto looks below output_root alone."""
    (tmp_path / "a run" / "samples" / "step_0000003.png").mkdir(parents=True)
    done = run_forked("train", *TINY, "callback.fid=null", "hydra.run.dir=a run", "trainer.max_steps=6", cwd=tmp_path)
    assert done.returncode == 1 and f"and continue with 'resume={tmp_path / 'a run'}'" in done.stderr, done.stderr


@pytest.mark.parametrize("place", [".hydra/config.yaml", "train.log"])
def test_a_run_whose_record_cannot_be_written_says_so(place: str, tmp_path: Path) -> None:
    """As on a full disk, which lets folders be made."""
    (tmp_path / "run" / place).mkdir(parents=True)
    done = run_forked("train", *TINY, "hydra.run.dir=run", cwd=tmp_path)
    said = "a command's record cannot be written (Is a directory): make room, or choose another folder, output_root="
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


class NoMemory(Callback):
    """As a GPU that a batch does not fit into."""

    def on_train_batch_start(self, *_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_run_that_does_not_fit_says_what_takes_less(tmp_path: Path) -> None:
    probe = ("+callback.probe._target_=tests.command_line.test_command.NoMemory", "hydra.run.dir=run")
    done = run_forked("train", *TINY, *probe, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "not enough memory (CUDA out of memory. Tried to allocate 20.00 GiB.): half of data.batch_size" in done.stderr
    )


def test_wandb_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    done = run_forked(
        "train",
        *TINY,
        "logger=[wandb]",
        cwd=tmp_path,
        env={"WANDB_API_KEY": "", "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_MODE": "online"},
    )
    assert done.returncode == 1
    assert "logger.wandb.offline=true" in done.stderr and "Traceback" not in done.stderr


def test_an_image_is_the_same_in_any_batch(run: Path, tmp_path: Path) -> None:
    for sampler in ("ddim", "ddpm"):
        options = (f"sampler={sampler}", "sampler.num_steps=3", "num_samples=12", "format=[npz,png,grid]")
        (one, labels), (other, _) = (
            arrays(sampled(run, tmp_path / f"{sampler}_{size}", *options, f"batch_size={size}")) for size in (12, 5)
        )
        assert np.abs(one.astype(int) - other).max() <= 1  # batched arithmetic may round the other way
        assert one.shape == (12, 8, 8, 1) and one.dtype == np.uint8
        assert labels is not None and labels.dtype == np.int64 and labels.tolist() == [*range(10), 0, 1]
        with Image.open(tmp_path / f"{sampler}_12" / "png" / "000007.png") as image:
            assert np.array_equal(np.asarray(image), one[7, :, :, 0])
        assert (tmp_path / f"{sampler}_12" / "grid.png").is_file()


def test_seed_labels_guidance_and_weights_matter(run: Path, tmp_path: Path) -> None:
    variants = {
        "plain": [],
        "seed": ["seed=1"],
        "labels": ["labels=[3,1,4]"],
        "one": ["labels=7"],
        "guided": ["guidance=3"],
        "raw": ["weights=raw"],
        "again": [],
    }
    common = ("sampler.num_steps=3", "num_samples=6", "format=npz")
    drawn = {name: arrays(sampled(run, tmp_path / name, *common, *options)) for name, options in variants.items()}
    assert np.array_equal(drawn["plain"][0], drawn["again"][0])
    assert drawn["labels"][1].tolist() == [3, 1, 4, 3, 1, 4] and drawn["one"][1].tolist() == [7] * 6
    for name in ("seed", "guided", "raw"):
        assert not np.array_equal(drawn["plain"][0], drawn[name][0]), name


@pytest.mark.filterwarnings("ignore:LinearSchedule with 500 steps ends far from noise")
@pytest.mark.parametrize(
    "options, words",
    [
        (["labels=3"], "without classes"),
        (["guidance=2"], "guidance=2"),
        (["weights=ema"], "weights=raw"),
        (["weights=raw", "sampler.num_steps=501"], "between 1 and 500"),
        (["weights=both"], "no weights named both; use weights=raw"),
        (["weights=raw", "format=gif"], "grid, png, npy, npz"),
        (["weights=raw", "num_samples=0"], "num_samples"),
    ],
)
def test_what_the_checkpoint_cannot_do_is_refused(
    unconditional: Path, options: list[str], words: str, tmp_path: Path
) -> None:
    weights = [] if any("weights" in option for option in options) else ["weights=raw"]
    assert words in refusal(unconditional, tmp_path / "out", *weights, *options)


def test_labels_out_of_range_are_refused(run: Path, tmp_path: Path) -> None:
    """On one screen, as a user sees it."""
    done = run_forked("sample", f"ckpt={run}", "labels=[3,10]", cwd=tmp_path)
    assert done.returncode == 1 and "from 0 to 9" in done.stderr and "Traceback" not in done.stderr


def test_guided_and_interpolated_images_are_what_they_say(run: Path, tmp_path: Path) -> None:
    """A model guided by itself is itself; a row begins and ends with the images of its two noises."""
    variants = {
        "plain": ["labels=3"],
        "by itself": ["labels=3", "guidance=3", f"guide={quote(str(run))}"],
        "nowhere": ["labels=3", "guidance=3", "guidance_interval=[1e4,1e5]"],
        "middle": ["labels=3", "guidance=3", "guidance_interval=[0.5,20]"],
        "rows": ["labels=3", "interpolate=4", "batch_size=5"],
    }
    common = ("sampler=dpmpp_2m", "sampler.num_steps=4", "num_samples=12", "format=npz")
    drawn = {
        name: arrays(sampled(run, tmp_path / name, *common, *options))[0].astype(int)
        for name, options in variants.items()
    }
    assert np.abs(drawn["plain"] - drawn["by itself"]).max() <= 1  # rounding
    assert np.array_equal(drawn["plain"], drawn["nowhere"]) and not np.array_equal(drawn["plain"], drawn["middle"])
    assert np.abs(drawn["rows"][[0, 3, 4, 7, 8, 11]] - drawn["plain"][[0, 1, 1, 2, 2, 3]]).max() <= 1
    for options, words in {
        "guidance_interval=[0,1]": "guidance=1 does not guide",
        "interpolate=1": "2 or more",
    }.items():
        assert words in refusal(run, tmp_path / "refused", options)


def stamp(_: int) -> str:
    return str(OmegaConf.create({"at": "${stamp:}"}).at)


def test_runs_of_the_same_second_do_not_collide() -> None:
    """Four processes started at once, which are even copies of one."""
    with multiprocessing.get_context("fork").Pool(4, maxtasksperchild=1) as pool:
        stamps = set(pool.map(stamp, range(4), chunksize=1))
    assert len(stamps) == 4 and all(re.fullmatch(r"[\d-]+_[\d-]+_[0-9a-f]{6}", stamp) for stamp in stamps)


def test_processes_share_the_images_of_sample(run: Path, tmp_path: Path) -> None:
    """Started as torchrun starts them: the files of one process, one report."""
    common = [f"ckpt={run}", "sampler.num_steps=2", "num_samples=7", "batch_size=2", "format=[png,npz,grid]"]
    assert run_forked("sample", *common, f"out={tmp_path / 'alone'}", cwd=tmp_path).returncode == 0
    ended = run_launched("sample", *common, f"out={tmp_path / 'shared'}", folders=[tmp_path, tmp_path])
    assert [code for code, _ in ended] == [0, 0], ended
    assert "".join(said for _, said in ended).count("7 images from") == 1
    alone, both = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.png")}
        for folder in (tmp_path / "alone", tmp_path / "shared")
    )
    assert len(alone) == 8 and both == alone
    arrays = [np.load(tmp_path / name / "samples.npz") for name in ("alone", "shared")]
    assert all(np.array_equal(arrays[0][key], arrays[1][key]) for key in ("arr_0", "arr_1"))


@pytest.mark.parametrize("place", ["answer", "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_configuration"])
def test_control_c_at_the_start_shows_no_traceback(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place if "." in place else f"diffusion_lit.command_line.command.{place}", interrupted)
    monkeypatch.setattr(sys, "argv", ["inspect"])
    monkeypatch.setattr("diffusion_lit.command_line.command.outlive_nobody", lambda: None)
    with pytest.raises(SystemExit) as stop:
        command("inspect")(lambda cfg: None)()
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "stopped by SIGINT: give the same command again"


@pytest.mark.parametrize("arguments", [["-m", "seed=1,2"], ["seed=1,2", "hydra.mode=MULTIRUN"]])
def test_a_sweep_by_a_launcher_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as stop:
        command("train")(lambda cfg: None)()
    assert stop.value.code == 1
    assert re.search(r"error: torchrun has started .* give this command without torchrun", capsys.readouterr().err)
