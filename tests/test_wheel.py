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
    build = [sys.executable, "-c", "import sys, hatchling.build as b; b.build_wheel(sys.argv[1])", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_its_configuration(site: Path, tmp_path: Path) -> None:
    own = site / "diffusion_lit" / "conf"
    for source in (ROOT / "conf").rglob("*.yaml"):
        assert (own / source.relative_to(ROOT / "conf")).is_file()
    code = "from diffusion_lit.command_line.catalogue import CONFIG_FOLDER; print(CONFIG_FOLDER)"
    env = {"PYTHONPATH": str(site)}
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True)
    assert where.stdout.decode().strip() == str(own)


@pytest.mark.slow
def test_the_wheel_runs(site: Path, tmp_path: Path) -> None:
    here = {"PYTHONPATH": str(site)}
    run = run_command("train", *TINY, "trainer.max_steps=1", "callback.fid=null", cwd=tmp_path, env=here)
    assert run.returncode == 0, run.stderr
    [record] = tmp_path.glob("outputs/train/*/.hydra/hydra.yaml")
    assert str(site / "diffusion_lit" / "conf") in record.read_text()


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
