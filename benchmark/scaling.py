"""What more processes cost a step: measured on this CPU, computed for GPU nodes.

    python benchmark/scaling.py [--steps 30] [--parameters 121e6] [--step-ms 250] [--within 200] [--between 25]

Weak scaling: each process has the same batch, so that a step should take as long however many there are. Measured are
real runs of the digits, `trainer.devices=1,2,4 strategy=ddp` over gloo; where there are more processes than cores, the
cores are shared, which the second figure takes out. Computed is a step of `--step-ms` on each GPU whose gradients
(float32) go round a ring within a node and another between nodes, at these gigabytes a second for each GPU: nothing of
that is measured, and latency, stragglers and loading are left out. The truth lies between no overlap of sending and
computing, and full overlap with the backward pass, two thirds of a step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

WARM_UP = 5
GPUS = 8  # to a node
FULL_OVERLAP = 2 / 3


class Clock(Callback):
    """Writes down when each step ended."""

    def __init__(self, file: str) -> None:
        self.file, self.times = Path(file), list[float]()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.times.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.file.write_text(json.dumps(self.times))


def measured(processes: int, steps: int) -> float:
    """Seconds of a step, the median of a run."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "trainer.devices": processes,
            "strategy": "ddp",
            "trainer.accelerator": "cpu",
            "trainer.max_steps": steps + WARM_UP,
            "trainer.val_check_interval": 10 * steps,
            "callback.last_checkpoint.every_n_steps": 10 * steps,
            "trainer.num_sanity_val_steps": 0,
            "callback.fid": "null",
            "callback.sample_grid": "null",
            "data.batch_size": 64,
            "hydra.run.dir": f"{folder}/run",
            "+callback.clock._target_": "scaling.Clock",
            "+callback.clock.file": f"{folder}/times.json",
        }
        command = [sys.executable, "-m", "diffusion_lit.train", *(f"{key}={value}" for key, value in options.items())]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run(command, check=True, capture_output=True, env=env)
        times = json.loads(Path(folder, "times.json").read_text())
    return statistics.median(b - a for a, b in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False))


def exchange_seconds(gpus: int, gradient_bytes: float, within: float, between: float) -> float:
    """Seconds in which gradients go round a ring of a node's GPUs, and, cut among these, round a ring of the nodes."""
    local, nodes = min(gpus, GPUS), -(-gpus // GPUS)
    return 2 * gradient_bytes / 1e9 * ((local - 1) / local / within + (nodes - 1) / nodes / local / between)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--parameters", type=float, default=121e6, help="of the model (121e6: model=large)")
    parser.add_argument("--step-ms", type=float, default=250, help="of one GPU alone")
    parser.add_argument("--within", type=float, default=200, help="GB/s of a GPU within its node")
    parser.add_argument("--between", type=float, default=25, help="GB/s of a GPU to other nodes")
    args = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    print(f"Measured: gloo processes on {cores} cores, 64 digits each\n")
    print("| processes | ms a step | efficiency | with a core for each |\n| --- | --- | --- | --- |")
    seconds = {count: measured(count, args.steps) for count in (1, 2, 4)}
    for count, step in seconds.items():
        share = seconds[1] / step
        print(f"| {count} | {1000 * step:.0f} | {share:.2f} | {share * max(1, count / cores):.2f} |")

    print(
        f"\nComputed, not measured: {args.parameters / 1e6:.0f} M parameters, {args.step_ms:.0f} ms a step, {GPUS} GPUs"
    )
    print(f"a node, {args.within:.0f} GB/s a GPU within it and {args.between:.0f} GB/s between nodes\n")
    print("| GPUs | ms to exchange | efficiency without overlap | with full overlap |\n| --- | --- | --- | --- |")
    for gpus in (1, 8, 16, 64, 256):
        exchange = 1000 * exchange_seconds(gpus, 4 * args.parameters, args.within, args.between)
        exposed = max(0.0, exchange - FULL_OVERLAP * args.step_ms)
        shares = [args.step_ms / (args.step_ms + waited) for waited in (exchange, exposed)]
        print(f"| {gpus} | {exchange:.1f} | {shares[0]:.3f} | {shares[1]:.3f} |")


if __name__ == "__main__":
    main()
