"""What is shipped: the package with its configuration, run from outside the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.launch import ROOT, TINY, run_command


def test_the_wheel_has_its_configuration_and_runs(tmp_path: Path) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    for source in (ROOT / "conf").rglob("*.yaml"):
        assert (site / "diffusion_lit" / "conf" / source.relative_to(ROOT / "conf")).is_file()
    here = {"PYTHONPATH": str(site)}
    run = run_command("train", *TINY, "trainer.max_steps=1", "callback.fid=null", cwd=tmp_path, env=here)
    assert run.returncode == 0, run.stderr
    where = run_command("train", "--info", "searchpath", cwd=tmp_path, env=here)
    assert str(site / "diffusion_lit" / "conf") in where.stdout
