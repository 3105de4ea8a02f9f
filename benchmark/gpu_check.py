"""What only a GPU can show, in under 8 minutes, as one page.

    python benchmark/gpu_check.py docs/gpu.md [--device cuda]

In turn: the tests marked `gpu`; a step against diffusers, as it comes and with channels last, with its memory; sampling
against diffusers; two minutes of training; a network that is compiled, recomputed, or has its channels last, against
the plain one, in float32 and bfloat16; a step against diffusers, both compiled. Each program has a time limit, after
which the page says that it was cut off; one that fails is shown with its last lines, and the next follows. `--device
cpu --quick` tries the script itself where there is no GPU.
"""

import argparse
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from diffusion_lit.condition import Condition
from diffusion_lit.environment import machine, versions
from diffusion_lit.execution import Execution
from diffusion_lit.model import UNet

HERE = Path(__file__).parent
MINUTES = 7.7
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference over largest value: kernels add up in another order."""


def run(command: list[str], limit: float) -> str:
    """What a command prints, whole or its last lines, in a block of text."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        state, text = ("" if done.returncode == 0 else f"FAILED with {done.returncode}, "), done.stdout
        text += done.stderr[-1500:] if done.returncode else ""
    except subprocess.TimeoutExpired as cut:
        state, text = f"CUT OFF after {limit:.0f} s, ", (cut.stdout or b"").decode(errors="replace")
    lines = "\n".join(text.strip().splitlines()[-40:])
    return f"{state}{time.monotonic() - start:.0f} s\n\n```text\n{lines}\n```"


def gradients(execution: Execution | None, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a small network and the gradient of its first layer."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # whose kernels round to a thousandth, each in its own way
    network = UNet(16, 3, channels=32, channel_multipliers=(1, 2), attention_resolutions=(8,), num_groups=8).to(device)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if execution is not None:
        execution.apply(network, torch.device(device))
    x = torch.randn(4, 3, 16, 16, device=device)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        out = network(x, torch.linspace(0, 999, 4, device=device), Condition())
    out.float().square().mean().backward()
    assert network.first.weight.grad is not None
    return out.detach().float(), network.first.weight.grad.float()


def equivalences(device: str) -> str:
    """How far each way to run a network is from the plain one."""
    lines = ["| | precision | output | gradient | |", "| --- | --- | --- | --- | --- |"]
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        plain = gradients(None, dtype, device)
        for option in ("compile", "gradient_checkpointing", "channels_last"):
            try:
                other = gradients(Execution(**{option: True}), dtype, device)
            except Exception as error:  # the page says so, and the next part follows
                lines.append(f"| `{option}` | {name} | | | FAILED: {error} |")
                continue
            apart = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(plain, other, strict=True)]
            verdict = "alike" if max(apart) < TOLERANCE[name] else "DIFFERENT"
            lines.append(f"| `{option}` | {name} | {apart[0]:.1e} | {apart[1]:.1e} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --quick tries the script itself")
    python, facts = sys.executable, machine()
    end = time.monotonic() + MINUTES * 60
    common = ["--device", args.device, "--channels", "32" if args.quick else "128"]
    step = [python, str(HERE / "step_time.py"), *common, "--batch-size", "4" if args.quick else "128"]
    step += ["--repeats", "2" if args.quick else "20"]
    draw = [python, str(HERE / "sampling.py"), *common, "--batch-size", "4" if args.quick else "256", "--ways", "plain"]
    draw += ["--num-samples", "8", "--num-steps", "3"] if args.quick else ["--num-samples", "1024"]
    tests = [
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        "4" if (os.cpu_count() or 1) >= 8 else "1",
        "-m",
        "gpu",
        "--disable-warnings",
    ]
    tests.append("tests/test_gpu.py")
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    device_name = facts["gpus"][0] if args.device == "cuda" else facts["cpu"]
    page = [f"# A check on {device_name}\n\n{datetime.now(UTC).date()}: {libraries}"]

    def add(heading: str, text: str) -> None:
        page.append(f"## {heading}\n\n{text}")
        args.out.write_text("\n\n".join(page) + "\n")
        print(heading, flush=True)

    def add_run(heading: str, command: list[str], limit: float) -> None:
        add(heading, run(command, max(1, min(limit, end - time.monotonic()))))

    with TemporaryDirectory() as folder:
        train = [python, "-m", "diffusion_lit.train", f"hydra.run.dir={folder}/run", "progress=plain"]
        train += [f"trainer.accelerator={'gpu' if args.device == 'cuda' else 'cpu'}", "trainer.max_steps=null"]
        train += [f"trainer.max_minutes={0.1 if args.quick else 2}", "trainer.precision=bf16-mixed"]
        add_run("Tests marked gpu", tests, 120)
        add_run("A step against diffusers", [*step, "--ways", "plain", "channels_last"], 90)
        add_run("Sampling against diffusers", draw, 60)
        add_run("Two minutes of training", train, 170)
        add("The same network, run otherwise", equivalences(args.device))
        compiled = ["--ways", "plain", "compiled", "--precisions", "float32" if args.quick else "bfloat16"]
        add_run("A step against diffusers, both compiled", [*step, *compiled], 200)


if __name__ == "__main__":
    main()
