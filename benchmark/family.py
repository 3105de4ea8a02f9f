"""Every schedule with every parameterization: the same training, then every deterministic sampler at few steps.

    python benchmark/family.py docs/family.md [--num-steps 500] [--resume FOLDER]

Trains each pair on the 8 x 8 digits for the same number of steps and from the same seed, with nothing else changed from
the defaults, and samples from the averaged weights. FID is between random_vgg features of the samples and of the
training images; accuracy is the share of samples that a classifier which saw only real digits reads as their label.
"""

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.svm import SVC
from torchmetrics.image import FrechetInceptionDistance

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.command import CONFIG_FOLDER
from diffusion_lit.data import ArrayImages, DigitsData
from diffusion_lit.generate import default_labels, generate
from diffusion_lit.metric import RandomVGG
from diffusion_lit.training import train

NUM_STEPS = (10, 20, 50)
NUM_SAMPLES = 500


def members(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


def deterministic_samplers() -> list[str]:
    built = {
        name: instantiate(OmegaConf.load(CONFIG_FOLDER / "sampler" / f"{name}.yaml")) for name in members("sampler")
    }
    return [name for name, sampler in built.items() if not sampler.stochastic]


class Judge:
    """Accuracy and FID of samples, uint8 [N, 1, 8, 8]."""

    def __init__(self) -> None:
        data = DigitsData()
        data.setup()
        real = data.splits["train"]
        assert isinstance(real, ArrayImages) and real.labels is not None
        self.classifier = SVC(gamma="scale", C=10).fit(real.images.flatten(1).double().numpy(), real.labels)
        extractor = RandomVGG(seed=0).eval()
        extractor.num_features = extractor(real.images[:1]).shape[1]
        self.fid = FrechetInceptionDistance(extractor, reset_real_features=False)
        for images in real.images.split(250):
            self.fid.update(images, real=True)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, labels: list[int]) -> dict[str, float]:
        self.fid.reset()
        for batch in images.split(250):
            self.fid.update(batch, real=False)
        accuracy = self.classifier.score(images.flatten(1).double().numpy(), np.array(labels))
        return {"fid": float(self.fid.compute()), "accuracy": float(accuracy)}


def measure(schedule: str, parameterization: str, num_steps: int, folder: Path) -> dict[str, Any]:
    """Train one pair and sample from it; what is refused says so."""
    run = folder / f"{schedule}_{parameterization}"
    overrides = [
        f"schedule={schedule}",
        f"parameterization={parameterization}",
        f"run_dir={run}",
        f"trainer.max_steps={num_steps}",
        f"trainer.val_check_interval={num_steps}",
        "trainer.accelerator=cpu",
        "callback.fid=null",
        "callback.sample_grid=null",
        "callback.progress=null",
    ]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        cfg = compose("train", overrides)
    run.mkdir(parents=True, exist_ok=True)
    try:
        trainer = train(cfg)
    except Exception as error:
        if "signal is left" not in str(error):
            raise
        return {"refused": True}
    found: dict[str, Any] = {"val_loss": float(trainer.callback_metrics["val/loss"]), "samples": {}}
    denoiser, _ = load_denoiser(run)
    labels = default_labels(denoiser, range(NUM_SAMPLES))
    judge = Judge()
    for name in deterministic_samplers():
        for steps in (1,) if name == "ode" else NUM_STEPS:
            sampler = instantiate(OmegaConf.load(CONFIG_FOLDER / "sampler" / f"{name}.yaml"), num_steps=steps)
            images = generate(denoiser, sampler, range(NUM_SAMPLES), labels, seed=1)
            assert labels is not None
            found["samples"][f"{name} {'' if name == 'ode' else steps}".strip()] = judge(images, labels)
    return found


def job(task: tuple[str, str, int, Path]) -> tuple[str, str, dict[str, Any]]:
    schedule, parameterization, num_steps, folder = task
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    file = folder / f"{schedule}_{parameterization}.json"
    if not file.is_file():
        found = measure(schedule, parameterization, num_steps, folder)
        file.write_text(json.dumps(found))
    return schedule, parameterization, json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the table, Markdown")
    parser.add_argument("--num-steps", type=int, default=500, help="of training")
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/family"), help="runs and figures; what is there is kept"
    )
    parser.add_argument("--num-processes", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tasks = [(s, p, args.num_steps, args.folder) for s in members("schedule") for p in members("parameterization")]
    start, results = time.monotonic(), {}
    with multiprocessing.get_context("spawn").Pool(args.num_processes, maxtasksperchild=1) as pool:
        for schedule, parameterization, found in pool.imap_unordered(job, tasks):
            results[schedule, parameterization] = found
            print(f"{len(results)} of {len(tasks)}  {schedule} {parameterization}  {time.monotonic() - start:.0f} s")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
