"""Show that a change keeps what a run computes: the demo at two commits, beside each other.

    python benchmark/compare_commits.py OLD [NEW]

NEW is the working tree if it is left out. Each side trains the demo for 200 steps, and draws 64 images by each sampler
from the old side's checkpoint; the new side also resumes a run of the old side's after 100 steps. What must agree, to
the bit or to --tolerance: the 200 losses, the checkpoint's weights and their average, the samples.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
STEPS = 200
SAMPLERS = ("ddpm", "ddim", "heun", "dpmpp_2m", "unipc")
FEW = {"ddpm": "sampler.num_steps=20"}
"""DDPM takes all 1,000 steps otherwise."""
OPTIONS = (
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=100",
    "callback.fid=null",
    "callback.sample_grid=null",
)


def check_out(commit: str, folder: Path) -> Path:
    """The files of a commit, in `folder`."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run(side: Path, command: str, *options: str) -> None:
    """`python -m diffusion_lit.COMMAND` with the source of one side."""
    done = subprocess.run(
        [sys.executable, "-m", f"diffusion_lit.{command}", *options],
        cwd=side,
        env={**os.environ, "PYTHONPATH": str(side / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command} of {side} failed:\n{done.stderr}")


def train(side: Path, out: Path, *options: str) -> None:
    run(side, "train", f"hydra.run.dir={out}", *OPTIONS, *options)


def draw(side: Path, checkpoint: Path, out: Path) -> None:
    for name in SAMPLERS:
        few = FEW.get(name, "sampler.num_steps=10")
        options = (f"ckpt={checkpoint}", f"out={out / name}", "num_samples=64", "format=npz", f"sampler={name}", few)
        run(side, "sample", *options)


def losses(run_folder: Path) -> dict[str, torch.Tensor]:
    with (run_folder / "metrics.csv").open() as file:
        values = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    return {"train/loss": torch.tensor(values, dtype=torch.float64)}


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    tensors: dict[str, torch.Tensor] = {}
    for name in ("state_dict", "ema"):
        tensors |= {f"{name} {key}": value for key, value in checkpoint[name].items()}
    return tensors


def samples(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.load(folder / name / "samples.npz")["arr_0"]).float() for name in SAMPLERS}


def difference(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> float:
    """The largest, over all tensors; infinite where one is missing or has another shape."""
    if old.keys() != new.keys() or any(old[key].shape != new[key].shape for key in old):
        return float("inf")
    return max(float((old[key].double() - new[key].double()).abs().max()) for key in old)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--tolerance", type=float, default=0.0, help="the largest difference allowed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        old = check_out(args.old, work / "old")
        new = ROOT if args.new is None else check_out(args.new, work / "new")
        for name, side in (("old_run", old), ("new_run", new)):
            train(side, work / name, f"trainer.max_steps={STEPS}")
        train(old, work / "half", f"trainer.max_steps={STEPS // 2}")
        train(new, work / "resumed", f"trainer.max_steps={STEPS}", f"resume={work / 'half'}")
        for name, side in (("old_samples", old), ("new_samples", new)):
            draw(side, work / "old_run", work / name)
        same = {
            f"{STEPS} losses": difference(losses(work / "old_run"), losses(work / "new_run")),
            "weights and average": difference(weights(work / "old_run"), weights(work / "new_run")),
            "weights of the old run, resumed": difference(weights(work / "old_run"), weights(work / "resumed")),
            "samples of the old checkpoint": difference(samples(work / "old_samples"), samples(work / "new_samples")),
        }
    for what, largest in same.items():
        verdict = "equal to the bit" if largest == 0 else f"differ by up to {largest:.3g}"
        print(f"{what:34} {verdict}")
    sys.exit(any(not largest <= args.tolerance for largest in same.values()))


if __name__ == "__main__":
    main()
