"""The promises that take minutes: the demo's digits, and the package installed afresh. Run by `make test-slow`."""

import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.picture.image import to_uint8
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDIMSampler
from tests.launch import ROOT, run_command

pytestmark = pytest.mark.slow


def test_the_demo_draws_digits_that_read_as_their_labels(tmp_path: Path) -> None:
    """`make train`, then 500 samples by 50-step DDIM without guidance, and with."""
    started = time.monotonic()
    command = [sys.executable, "-m", "diffusion_lit.train", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    print(done.stdout, f"{time.monotonic() - started:.0f} s")
    assert all(word in done.stdout for word in ("samples", "metrics", "checkpoint", "Try next"))
    for guidance in ("1", "2"):
        judge = [sys.executable, str(ROOT / "benchmark" / "digits.py"), str(tmp_path / "run"), "--guidance", guidance]
        verdict = subprocess.run(judge, capture_output=True, text=True, check=False)
        print(verdict.stdout)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr

    denoiser, _ = load_denoiser(tmp_path / "run")
    noise = ImageNoise(0, range(4), (1, 8, 8))
    assert to_uint8(DDIMSampler(50, clip=1.0)(denoiser, noise)).float().std() > 30  # without a class: no blank image


def test_the_wheel_trains_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """Built, installed with its dependencies into an empty environment, run outside the checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    command = [python, "-m", "diffusion_lit.train", "trainer.max_steps=20", "callback.fid.num_samples=50"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Try next" in done.stdout
    assert list((tmp_path / "outputs" / "train").glob("*/samples/step_0000020.png"))


def test_train_answers_its_sampling_suggestion(tmp_path: Path) -> None:
    """What the run says to try next works as printed."""
    done = run_command("train", "trainer.max_steps=2", "callback.fid=null", cwd=tmp_path)
    suggestion = next(line.split("diffusion_lit.sample ")[1] for line in done.stdout.splitlines() if ".sample " in line)
    assert run_command("sample", *suggestion.split(), cwd=tmp_path).returncode == 0
