"""Every schedule with every parameterization: the same training, then every deterministic sampler at few steps.

    python benchmark/family.py docs/family.md

Trains each pair on the 8 x 8 digits with a network of half the default width at twice the learning rate, for the same
number of steps and from the same seed, with all else as by default, and samples from the averaged weights. FID is
between random_vgg features of the samples and of the training images; accuracy is the share of samples that a
classifier which saw only real digits reads as their label. `euler` is not listed: without churn it is `ddim`. What the
folder has already is kept.
"""

import argparse
import json
import multiprocessing
import re
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from digits import flat, reader
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchmetrics.image import FrechetInceptionDistance

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.command_line.command import CONFIG_FOLDER, explain
from diffusion_lit.data import ArrayImages, DigitsData
from diffusion_lit.feature import RandomVGG
from diffusion_lit.generate import default_labels, generate
from diffusion_lit.sampler import Sampler
from diffusion_lit.training import train

NUM_SAMPLES = 250
SAMPLERS = [(name, steps) for name in ("ddim", "heun", "dpmpp_2m", "dpmpp_3m", "unipc") for steps in (10, 20, 50)]
SAMPLERS.append(("ode", 1))
MARKER = "<!-- what follows is written by hand -->"


def members(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


class Judge:
    """Accuracy and FID of samples, uint8 [N, 1, 8, 8]."""

    def __init__(self) -> None:
        data = DigitsData()
        data.setup()
        real = data.splits["train"]
        assert isinstance(real, ArrayImages) and real.labels is not None
        self.classifier = reader(real)
        extractor = RandomVGG(seed=0).eval()
        extractor.num_features = extractor(real.images[:1]).shape[1]
        self.fid = FrechetInceptionDistance(extractor, reset_real_features=False)
        for images in real.images.split(250):
            self.fid.update(images, real=True)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, labels: list[int]) -> dict[str, float]:
        self.fid.reset()
        self.fid.update(images, real=False)
        accuracy = self.classifier.score(flat(images), labels)
        return {"fid": float(self.fid.compute()), "accuracy": float(accuracy)}


judge = cache(Judge)


def fit(schedule: str, parameterization: str, num_steps: int, run: Path) -> dict[str, Any]:
    """Train one pair; a pair that is refused says so."""
    overrides = [
        f"schedule={schedule}",
        f"parameterization={parameterization}",
        f"run_dir={run}",
        f"trainer.max_steps={num_steps}",
        f"trainer.val_check_interval={num_steps}",
        "trainer.accelerator=cpu",
        "model.channels=16",
        "model.num_groups=4",
        "optimizer.lr=2e-3",
        *(f"callback.{name}=null" for name in ("fid", "sample_grid", "progress")),
    ]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        cfg = compose("train", overrides)
    run.mkdir(parents=True, exist_ok=True)
    try:
        trainer = train(cfg)
    except InstantiationException as error:
        if "no signal is left" not in (explain(error) or ""):
            raise
        return {"refused": True}
    return {"val_loss": float(trainer.callback_metrics["val/loss"])}


def draw(run: Path, name: str, steps: int) -> dict[str, float]:
    """Sample from a trained pair, and judge."""
    denoiser, _ = load_denoiser(run)
    labels = default_labels(denoiser, range(NUM_SAMPLES))
    assert labels is not None
    sampler: Sampler = instantiate(OmegaConf.load(CONFIG_FOLDER / "sampler" / f"{name}.yaml"), num_steps=steps)
    return judge()(generate(denoiser, sampler, range(NUM_SAMPLES), labels, seed=1), labels)


def column(name: str, steps: int) -> str:
    return name if name == "ode" else f"{name} {steps}"


def job(task: tuple[str, str, int, Path]) -> tuple[str, str]:
    schedule, parameterization, num_steps, folder = task
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    run = folder / f"{schedule}_{parameterization}"
    file = run.with_suffix(".json")
    found = json.loads(file.read_text()) if file.is_file() else fit(schedule, parameterization, num_steps, run)
    for name, steps in SAMPLERS:
        if not found.get("refused") and column(name, steps) not in found:
            found[column(name, steps)] = draw(run, name, steps)
    file.write_text(json.dumps(found))
    return schedule, parameterization


def table(results: dict[tuple[str, str], dict[str, Any]], figure: str) -> list[str]:
    """One row a pair, one column for each sampler and number of steps; the best of each column is bold."""
    columns = [column(name, steps) for name, steps in SAMPLERS]
    lines = [f"| schedule | parameterization | {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * len(columns)]
    better = max if figure == "accuracy" else min
    best = {c: better(found[c][figure] for found in results.values() if c in found) for c in columns}
    for (schedule, parameterization), found in sorted(results.items()):
        cells = []
        for c in columns:
            if found.get("refused"):
                cells.append("-")
                continue
            value = found[c][figure]
            text = f"{100 * value:.0f}" if figure == "accuracy" else f"{1000 * value:.0f}"
            cells.append(f"**{text}**" if value == best[c] else text)
        lines.append(f"| {schedule} | {parameterization} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the tables, Markdown; what stands below its marker is kept")
    parser.add_argument("--num-steps", type=int, default=500, help="of training")
    parser.add_argument("--folder", type=Path, default=Path("outputs/family"), help="for runs and figures")
    parser.add_argument("--num-processes", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tasks = [(s, p, args.num_steps, args.folder) for s in members("schedule") for p in members("parameterization")]
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(args.num_processes) as pool:
        for number, pair in enumerate(pool.imap_unordered(job, tasks), start=1):
            print(f"{number} of {len(tasks)}: {' '.join(pair)}, {time.monotonic() - start:.0f} s", flush=True)
    results = {(s, p): json.loads((args.folder / f"{s}_{p}.json").read_text()) for s, p, *_ in tasks}
    lines = [
        "# The family on one dataset",
        "",
        f"Written by `python benchmark/family.py {args.out}`: each pair trained for {args.num_steps} steps of 64 "
        f"digits, {NUM_SAMPLES} samples of each. A dash is a pair that is refused, since it would divide by zero.",
        "",
        "## 1000 × FID (random_vgg), lower is better",
        "",
        *table(results, "fid"),
        "",
        "## Samples read as their label, percent",
        "",
        *table(results, "accuracy"),
        "",
        MARKER,
    ]
    kept = re.split(MARKER, args.out.read_text())[-1] if args.out.is_file() else "\n"
    args.out.write_text("\n".join(lines) + kept)


if __name__ == "__main__":
    main()
