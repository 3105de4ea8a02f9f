"""What is shipped: the package with its configuration, run from outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.launch import ROOT, TINY, run_command


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel installs."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_its_configuration_and_runs(site: Path, tmp_path: Path) -> None:
    for source in (ROOT / "conf").rglob("*.yaml"):
        assert (site / "diffusion_lit" / "conf" / source.relative_to(ROOT / "conf")).is_file()
    here = {"PYTHONPATH": str(site)}
    run = run_command("train", *TINY, "trainer.max_steps=1", "callback.fid=null", cwd=tmp_path, env=here)
    assert run.returncode == 0, run.stderr
    where = run_command("train", "--info", "searchpath", cwd=tmp_path, env=here)
    assert str(site / "diffusion_lit" / "conf") in where.stdout


@pytest.mark.slow
def test_own_parts_go_with_the_wheel(site: Path, tmp_path: Path) -> None:
    """The example's, trained where they are as its README says; what is printed works; a program draws elsewhere."""
    parts = ROOT / "examples" / "own_parts"
    small = (
        "experiment=shapes",
        "data.num_images=60",
        "trainer.max_steps=2",
        "callback.fid=null",
        "sampler.num_steps=2",
    )
    root, here = f"output_root={tmp_path / 'own parts'}", {"PYTHONPATH": str(site)}
    trained = run_command("train", "--config-dir", "conf", *small, root, cwd=parts, env=here)
    assert trained.returncode == 0, trained.stderr
    [run] = (tmp_path / "own parts" / "train").iterdir()
    printed = [line for line in trained.stdout.splitlines() if "-m diffusion_lit." in line]
    assert len(printed) == 2
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(parts)])}
    code = f"import diffusion_lit as dl; print(dl.load({str(run)!r}, allow=['shapes']).sample(2, num_steps=2).shape)"
    for command in (*printed, f'{sys.executable} -c "{code}"'):
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=there, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2, 16, 16, 1])"
