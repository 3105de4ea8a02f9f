"""Runs that are killed again and again, and must lose nothing: `make chaos`.

    python -m tests.chaos [--minutes 10] [--seed N]

Tiny runs are ended at drawn moments: while a batch is fetched, between backward pass and update, in validation, FID and
grids, in the middle of writing a file, before and after it is renamed, and by the clock. Each is resumed until it is
finished, and must then be the undisturbed run: weights, average, optimizer state and every logged figure, to the bit.
Between two attempts checkpoints are damaged; disks are full or read-only; numbers are not finite. Sweeps and prepared
sets are killed too. What was tried is printed, and written to outputs/chaos/report.md; the exit code is 1 if anything
was lost, and the folders of what was lost are kept.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from diffusion_lit import files
from diffusion_lit.callback import EMA, FID, SampleGrid
from diffusion_lit.callback.nan_guard import all_finite, tensors
from diffusion_lit.checkpoint import damage, damaged_part, peek
from diffusion_lit.data import DigitsData
from tests.launch import PATIENCE, ROOT, TINY, Forked, few, model_figures
from tests.pictures import named, write_folder

KILL = signal.SIGKILL
SOFT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals at which a run saves before it ends."""
POINTS = ("batch", "gradient", "update", "step", "validation", "fid", "grid", "write", "write", "rename")
"""Where a run is ended; most of what can break is in writing."""
REPLACE = Path.replace


def wrap_drawing(trainer: Trainer, wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put what `wrap` makes of a place's name and its work in the place of FID's measuring and of a grid's drawing."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FID):
            callback.measure = wrap("fid", callback.measure)  # type: ignore[method-assign]
        if isinstance(callback, SampleGrid):
            callback.sample = wrap("grid", callback.sample)  # type: ignore[method-assign]


class Probe(Callback):
    """Ends its own process, or spoils something, where a plan says so; without one, counts how often each point comes.

    Args:
        plan: a JSON file: `point`, `count` (its so manieth coming), `act` (a signal's number, or a fault's name) and
            `rank`. It need not exist.
    """

    def __init__(self, plan: str) -> None:
        self.file, self.rank = Path(plan), int(os.environ.get("LOCAL_RANK", 0))
        plans = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.plan: dict[str, Any] = plans if plans.get("rank") == self.rank else {}
        self.counts: Counter[str] = Counter()
        self.drawing = self.poison = self.broken = ""
        files.open = self.open  # type: ignore[attr-defined]
        Path.replace = lambda path, target: self.replace(path, target)  # type: ignore[method-assign, assignment]

    def reach(self, point: str, flush: Callable[[], None] = lambda: None) -> None:
        self.counts[point] += 1
        if (self.plan.get("point"), self.plan.get("count")) != (point, self.counts[point]):
            return
        flush()
        act = self.plan["act"]
        if isinstance(act, int):
            os.kill(os.getpid(), act)
        elif act in ("full", "read-only"):
            self.broken = act
        else:
            self.poison = act

    def refuse(self) -> None:
        if self.broken:
            number = errno.ENOSPC if self.broken == "full" else errno.EROFS
            raise OSError(number, os.strerror(number))

    def open(self, path: Path, mode: str) -> "Written":
        self.refuse()
        return Written(open(path, mode), self)

    def replace(self, path: Path, target: Path) -> Path:
        self.reach("rename")
        done = REPLACE(path, target)
        self.reach("rename")
        return done

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        wrap_drawing(trainer, self.during)
        network = pl_module.denoiser.network
        assert isinstance(network, nn.Module)
        network.register_forward_pre_hook(self.before_forward)
        next(network.parameters()).register_hook(self.on_backward)

    def during(self, point: str, draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*args: Any) -> Any:
            self.drawing = point
            try:
                return draw(*args)
            finally:
                self.drawing = ""

        return drawn

    def before_forward(self, network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.drawing:
            self.reach(self.drawing)
        if self.poison == "NaN in a batch" and network.training:
            self.poison = ""
            return (args[0].index_fill(0, torch.tensor(0), torch.nan), *args[1:])
        return None

    def on_backward(self, gradient: Tensor) -> Tensor | None:
        return gradient * torch.nan if self.poison == "NaN in a gradient" else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.reach("batch")

    def on_gradient(self, *_: Any) -> None:
        self.reach("gradient")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.reach("update")
        if self.poison == "NaN in the EMA":
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EMA):
                    next(iter(callback.average.values())).fill_(torch.nan)

    def on_step_end(self, *_: Any) -> None:
        self.reach("step")

    def on_validation_batch_start(self, *_: Any) -> None:
        self.reach("validation")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.rank == 0 and not self.file.is_file():
            self.file.with_suffix(".counts").write_text(json.dumps(self.counts))


@dataclass
class Written:
    """A file, of whose pieces the probe hears."""

    file: IO[bytes]
    probe: Probe

    def write(self, data: bytes) -> int:
        self.probe.reach("write", self.file.flush)
        self.probe.refuse()
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@dataclass(frozen=True)
class Variant:
    """One kind of run."""

    ranks: int = 1
    accumulate: int = 1
    workers: int = 0
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = "".join(f", {option}" for option in self.more)
        return f"{self.ranks} rank(s), accumulation {self.accumulate}, workers {self.workers}{more}"

    @property
    def options(self) -> list[str]:
        changed = {
            "data.batch_size": 60 // self.ranks // self.accumulate,
            "data.num_workers": self.workers,
            "trainer.devices": self.ranks,
            "trainer.accumulate_grad_batches": self.accumulate,
            "trainer.log_every_n_steps": 1,
            "density": "importance",
            "density.num_bins": 5,
            "density.history_size": 2,
            "augmentation": "flip",
            "model.dropout": 0.1,
            "callback.last_checkpoint.every_n_steps": 2,
        }
        options = [option for option in TINY if option.partition("=")[0] not in changed]
        budget = [] if any("max_images" in option for option in self.more) else ["trainer.max_steps=14"]
        return [*options, *(f"{key}={value}" for key, value in changed.items()), *budget, *self.more]


BY_IMAGES = ("trainer.max_steps=null", "trainer.max_images=700")
VARIANTS = (
    Variant(),
    Variant(accumulate=3),
    Variant(workers=2),
    Variant(ranks=2),
    Variant(accumulate=3, workers=2, more=("callback.last_checkpoint.keep_last=3",)),
    Variant(more=BY_IMAGES),
    Variant(ranks=2, accumulate=3, workers=2),
)

DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {}


def damaging(name: str) -> Callable[[Callable[[Path, random.Random], None]], Callable[[Path, random.Random], None]]:
    def register(spoil: Callable[[Path, random.Random], None]) -> Callable[[Path, random.Random], None]:
        DAMAGES[name] = spoil
        return spoil

    return register


@damaging("cut")
def cut(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(1, file.stat().st_size))


@damaging("empty")
def empty(file: Path, draw: random.Random) -> None:
    file.write_bytes(b"")


@damaging("a flipped byte")
def flip(file: Path, draw: random.Random) -> None:
    """Of a tensor, where torch itself would read another weight."""
    with zipfile.ZipFile(file) as archive:
        member = draw.choice([info for info in archive.infolist() if "/data/" in info.filename and info.file_size])
        with archive.open(member):
            begin = archive.fp.tell()  # type: ignore[union-attr]
    data = bytearray(file.read_bytes())
    data[begin + draw.randrange(member.file_size)] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


@damaging("a folder")
def folder_instead(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


@damaging("not a checkpoint")
def another_file(file: Path, draw: random.Random) -> None:
    if draw.random() < 0.5:
        file.write_text("not a checkpoint at all")
    else:
        torch.save({"state_dict": {}}, file)


def table(run: Path) -> dict[str, dict[int, str]]:
    """metrics.csv: the model's figures by name and step, as they are written."""
    rows = model_figures(run) if (run / "metrics.csv").is_file() else []
    names = {name for row in rows for name in row} - {"step"}
    return {name: {int(row["step"]): row[name] for row in rows if row[name]} for name in names}


def unequal(a: Any, b: Any, where: str) -> Iterator[str]:
    """The places at which two nested containers differ; tensors to the bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from unequal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from unequal(x, y, f"{where}.{i}")
    elif isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield where
    elif a != b:
        yield f"{where}: {a} and {b}"


def checkpoints(chain: Path) -> list[Path]:
    return sorted(chain.glob("*/checkpoints/*.ckpt"))


@dataclass
class Reference:
    """An undisturbed run."""

    run: Path
    counts: dict[str, int]
    seconds: float


@dataclass
class Campaign:
    """What was tried, and what came of it.

    Args:
        folder: for the runs.
        draw: of moments, signals and damages.
        deadline: when nothing new is begun, by `time.monotonic`.
    """

    folder: Path
    draw: random.Random
    deadline: float = float("inf")
    tally: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    references: dict[Variant, Reference] = field(default_factory=dict)
    chains: int = 0
    damages: int = 0

    def fail(self, what: str) -> None:
        self.lost.append(what)
        print(f"LOST: {what}", flush=True)

    def command(
        self, name: str, log: Path, *args: str, number: int = 0, after: float = float("inf")
    ) -> tuple[int, str]:
        """Run a command in `log`'s folder, send it a signal after so many seconds: its exit code and what it said."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            command = [sys.executable, "-m", f"diffusion_lit.{name}", *args]
            process = Forked(command, log.parent, dict(os.environ), file.fileno(), file.fileno())
            if after < PATIENCE:
                end = time.monotonic() + after
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.005)
                if process.poll() is None:
                    process.send_signal(number)
            code = process.wait(PATIENCE)
        return code, log.read_text(errors="replace")

    def train(
        self, variant: Variant, run: Path, *args: str, plan: dict[str, Any] | None = None, **signalled: Any
    ) -> Any:
        plan_file = run.parent / "plan.json"
        plan_file.parent.mkdir(parents=True, exist_ok=True)
        plan_file.unlink(missing_ok=True)
        if plan is not None:
            plan_file.write_text(json.dumps(plan))
        probe = f"+callback.probe={{_target_: tests.chaos.Probe, plan: '{plan_file}'}}"
        log = run.parent / f"{run.name}_{len(list(run.parent.glob('*.txt')))}.txt"
        output = f"output_root={run.parent}"
        return self.command("train", log, *variant.options, probe, output, f"hydra.run.dir={run}", *args, **signalled)

    def reference(self, variant: Variant) -> Reference:
        if variant not in self.references:
            start, run = time.monotonic(), self.folder / f"reference_{len(self.references)}" / "run"
            code, said = self.train(variant, run)
            assert code == 0, said
            counts = json.loads((run.parent / "plan.counts").read_text())
            assert set(counts) == set(POINTS), counts
            self.references[variant] = Reference(run, counts, time.monotonic() - start)
        return self.references[variant]

    def new_chain(self) -> Path:
        self.chains += 1
        return self.folder / f"chain_{self.chains:03d}"

    def chain(self, variant: Variant, most: int = 8) -> None:
        """Start a run, end it, damage it, resume it, until it is finished; after `most` attempts it is left alone."""
        reference, chain, failed = self.reference(variant), self.new_chain(), len(self.lost)
        run, damaged, attempt = chain / "00", set[Path](), 0
        while True:
            args, run = self.resumption(chain, damaged, run, attempt)
            ending = self.ending(variant, reference) if attempt < most else {}
            code, said = self.train(variant, run, *args, **ending)
            attempt += 1
            self.judge(chain, variant, ending, code, said)
            unsaid = [file for file in damaged if args[-1:] == [f"resume={file.parents[1]}"] and str(file) not in said]
            if "resuming from" in said and unsaid:
                self.fail(f"resumed without a word of the damaged {unsaid[0]}:\n{said}")
            damaged = {file for file in damaged if damage(file) is not None}  # and not written anew
            self.inspect(chain, damaged, reference)
            if len(self.lost) > failed or code == 0:
                break
            if self.draw.random() < 0.25:
                self.damage(chain, damaged)
        self.tally[f"chains with {variant}"] += 1
        self.close(chain, reference, failed)

    def ending(self, variant: Variant, reference: Reference) -> dict[str, Any]:
        """A signal, and when it comes."""
        number = KILL if self.draw.random() < 0.7 else self.draw.choice(SOFT)
        if self.draw.random() < 0.2:
            self.tally["aimed by the clock"] += 1
            return {"number": int(number), "after": self.draw.uniform(0.1, 1.0) * reference.seconds}
        point = self.draw.choice(POINTS)
        rank = 0 if point in ("write", "rename") else self.draw.randrange(variant.ranks)
        count = self.draw.randint(1, max(1, reference.counts[point] * 2 // 3))
        return {"plan": {"point": point, "count": count, "act": int(number), "rank": rank}}

    def resumption(self, chain: Path, damaged: set[Path], run: Path, attempt: int) -> tuple[list[str], Path]:
        """The arguments that continue a chain, and the folder in which it continues."""
        runs = sorted({f.parents[1] for f in checkpoints(chain) if f not in damaged}, key=lambda run: run.name)
        new = chain / f"{attempt:02d}"
        way = self.draw.choice(["in place", "in a new folder", "resume=auto"])
        if way == "in place" and runs and any(file.is_dir() for file in damaged if file.parents[1] == runs[-1]):
            way = "in a new folder"  # what is in the way is refused
        if way == "resume=auto" or attempt == 0:
            return ["resume=auto"] if way == "resume=auto" else [], new
        if not runs:  # ended before there was anything
            return [], new
        self.tally[f"resumed {way}"] += 1
        return [f"resume={runs[-1]}"], runs[-1] if way == "in place" else new

    def judge(self, chain: Path, variant: Variant, ending: dict[str, Any], code: int, said: str) -> None:
        """Whether a process ended as it should have."""
        plan = ending.get("plan", {})
        number = ending.get("number", plan.get("act", 0))
        allowed = [0]
        if number == KILL:
            allowed += [-KILL] if plan.get("rank", 0) == 0 else list(range(-64, 256))
        elif number:
            allowed += [128 + number, *([-number] if "after" in ending else [])]
        where = plan.get("point", "the clock")
        if code and number:
            self.tally["kills"] += 1
            self.tally[f"{signal.Signals(number).name}"] += 1
            self.tally[f"in {where}"] += 1
        if code not in allowed or (number != KILL and code >= 0 and "Traceback" in said):
            self.fail(f"{variant}, {ending}: exit code {code} ({chain})\n{said[-3000:]}")

    def inspect(self, chain: Path, damaged: set[Path], reference: Reference, fault: str = "") -> None:
        """What must hold at any moment: files are whole and finite, and the figures so far are the undisturbed ones.

        A NaN that was a fault is among the figures of its step: as itself, and counted in `train/not_finite`.
        """
        for file in checkpoints(chain):
            if file not in damaged:
                self.tally["checkpoints verified"] += 1
                parts, found = peek(file)
                found = found or damaged_part(file)
                numbers = [
                    part for key, part in (parts or {}).items() if key.startswith(("state_dict", "ema", "optimizer"))
                ]
                if found is not None or not all_finite(tensors(numbers)):
                    self.fail(f"{file}: {found or 'not finite'}")
        expected = table(reference.run)
        of_fault = {"nan", "1.0"} if fault.startswith("NaN") else set()
        for run in {path.parent for path in chain.glob("*/metrics.csv")}:
            for name, column in table(run).items():
                allowed = of_fault if name == "train/not_finite" else of_fault & {"nan"}
                for step, value in column.items():
                    if value not in {expected.get(name, {}).get(step), *allowed}:
                        self.fail(f"{run}: {name} of step {step} is {value}, not {expected.get(name, {}).get(step)}")
                        return

    def damage(self, chain: Path, damaged: set[Path]) -> None:
        """Spoil the newest checkpoint."""
        good = [file for file in checkpoints(chain) if file not in damaged]
        if not good:
            return
        newest = max(good, key=lambda file: (peek(file)[0] or {})["global_step"])
        kind = list(DAMAGES)[self.damages % len(DAMAGES)]
        self.damages += 1
        DAMAGES[kind](newest, self.draw)
        damaged.add(newest)
        self.tally[f"damaged: {kind}"] += 1

    def compare(self, chain: Path, reference: Reference) -> None:
        """Whether a finished chain is the undisturbed run."""
        final = max(
            (file for file in chain.glob("*/checkpoints/last.ckpt") if file.is_file() and damage(file) is None),
            key=lambda file: ((peek(file)[0] or {})["global_step"], file.parents[1].name),
        )
        self.same(final, reference.run / "checkpoints" / "last.ckpt")

    def same(self, file: Path, reference: Path) -> None:
        """Whether two finished runs are the same run."""
        ours, theirs = (torch.load(path, weights_only=True) for path in (file, reference))
        keys = ("state_dict", "ema", "ema_num_updates", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        found = [place for key in keys for place in unequal(ours[key], theirs[key], key)]
        found += unequal(table(file.parents[1]), table(reference.parents[1]), "metrics.csv")
        found += [f"left over: {path}" for path in file.parents[1].rglob(".*.partial")]
        if found:
            self.fail(f"{file}: {'; '.join(found[:8])}")
        else:
            self.tally["compared with the undisturbed run: equal to the bit"] += 1

    def fault(self, variant: Variant, fault: str) -> None:
        """A run meets a full or read-only disk, or a number that is not finite: a message, and nothing bad is saved."""
        reference, chain, failed = self.reference(variant), self.new_chain(), len(self.lost)
        point = "write" if fault in ("full", "read-only") else "batch"
        rank = 0 if point == "write" else variant.ranks - 1
        plan = {"point": point, "count": self.draw.randint(1, reference.counts[point]), "act": fault, "rank": rank}
        code, said = self.train(variant, chain / "00", plan=plan)
        words = {"full": "the disk is full", "read-only": "cannot be written"}.get(fault, "not be finite|not finite")
        if code != 1 or not any(word in said for word in words.split("|")):
            self.fail(f"{variant}, {plan}: exit code {code} ({chain})\n{said[-3000:]}")
        if "Traceback" in said and variant.ranks == 1:
            self.fail(f"{variant}, {plan}: a traceback ({chain})\n{said[-3000:]}")
        self.inspect(chain, set(), reference, fault)
        args, run = self.resumption(chain, set(), chain / "00", 1)
        code, said = self.train(variant, run, *args)
        if code:
            self.fail(f"{variant}, after {plan}: exit code {code} ({chain})\n{said[-3000:]}")
        self.tally[f"fault: {fault}"] += 1
        self.close(chain, reference, failed)

    def close(self, chain: Path, reference: Reference, failed: int) -> None:
        """Compare a finished chain, and remove it if nothing was lost."""
        if len(self.lost) == failed:
            self.compare(chain, reference)
        if len(self.lost) == failed:
            shutil.rmtree(chain)

    def refusals(self, variant: Variant) -> None:
        """A folder is one run's; where no checkpoint is whole, none is taken."""
        reference, chain, failed = self.reference(variant), self.new_chain(), len(self.lost)
        run = chain / "00"
        plan_file = chain / "plan.json"
        plan = {"point": "batch", "count": max(1, reference.counts["batch"] - 1), "act": int(signal.SIGSTOP), "rank": 0}
        chain.mkdir()
        plan_file.write_text(json.dumps(plan))
        probe = f"+callback.probe={{_target_: tests.chaos.Probe, plan: '{plan_file}'}}"
        command = [sys.executable, "-m", "diffusion_lit.train", *variant.options, probe, f"hydra.run.dir={run}"]
        with (chain / "first.txt").open("w") as log:
            first = Forked(command, chain, dict(os.environ), log.fileno(), log.fileno())
            end = time.monotonic() + PATIENCE
            while Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < end and first.poll() is None, (chain / "first.txt").read_text()
                time.sleep(0.05)
            plan_file.unlink()
            self.refused(variant, run, "another process is training", f"resume={run}")
            first.send_signal(signal.SIGCONT)
            if first.wait(PATIENCE):
                self.fail(f"a run beside which another was refused:\n{(chain / 'first.txt').read_text()}")
        self.refused(variant, run, "holds a run already")
        self.compare(chain, reference)
        for file in checkpoints(chain):
            cut(file, self.draw)
        self.refused(variant, chain / "01", "no checkpoint in", f"resume={run}")
        if len(self.lost) == failed:
            shutil.rmtree(chain)

    def refused(self, variant: Variant, run: Path, words: str, *args: str) -> None:
        code, said = self.train(variant, run, *args)
        self.tally[f"refused: {words}"] += 1
        if code != 1 or words not in said or "Traceback" in said:
            self.fail(f"not refused ({words}): exit code {code}\n{said[-3000:]}")

    def until_done(self, name: str, folder: Path, *args: str, seconds: float, most: int) -> None:
        """Run a command again and again, killed by the clock up to `most` times, until it is through."""
        for attempt in range(most + 1):
            after = self.draw.uniform(0.05, 1.0) * seconds if attempt < most else float("inf")
            code, said = self.command(name, folder / f"{attempt}.txt", *args, number=KILL, after=after)
            if code == 0:
                return
            self.tally["kills"] += 1
            self.tally[f"in {name if name == 'prepare' else 'a sweep'}"] += 1
            if code != -KILL:
                self.fail(f"{name} {' '.join(args)}: exit code {code}\n{said[-3000:]}")
                return

    def sweep(self, most: int = 3) -> None:
        """A sweep that is killed is run again with the same command, and ends with the same runs."""
        chain, failed, ends = self.new_chain(), len(self.lost), []
        start = time.monotonic()
        for name, kills in (("undisturbed", 0), ("killed", most)):
            probe = f"+callback.probe={{_target_: tests.chaos.Probe, plan: '{chain / name / 'plan.json'}'}}"
            args = ["-m", "seed=1,2", "resume=auto", *Variant().options, probe, f"output_root={chain / name}"]
            seconds = time.monotonic() - start
            self.until_done("train", chain / name, *args, seconds=seconds, most=kills)
            newest: dict[int, tuple[int, Path]] = {}
            for file in chain.glob(f"{name}/multirun/*/*/checkpoints/last.ckpt"):
                recorded = peek(file)[0] or {}
                seed, found = recorded["config"]["seed"], (recorded["global_step"], file)
                newest[seed] = max(found, newest.get(seed, found))
            ends.append({seed: file for seed, (_, file) in newest.items()})
        for seed in (1, 2):
            theirs, ours = (end.get(seed) for end in ends)
            if theirs is None or ours is None:
                self.fail(f"a job of the sweep {chain} is missing: {ends}")
            else:
                self.same(ours, theirs)
        if len(self.lost) == failed:
            shutil.rmtree(chain)

    def prepare(self, most: int = 6) -> None:
        """A prepared set that is killed while it is made, and made by the same command, has the same bytes."""
        chain, failed = self.new_chain(), len(self.lost)
        write_folder(chain / "in", named(600))
        options = ("resolution=64", "val_fraction=0.2", "shard_megabytes=1", "workers=2")
        start = time.monotonic()
        for name, kills in (("undisturbed", 0), ("killed", most)):
            args = (f"source={chain / 'in'}", f"out={chain / name}", *options)
            self.until_done("prepare", chain / f"{name}_logs", *args, seconds=time.monotonic() - start, most=kills)
        trees = [
            {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}
            for root in (chain / "undisturbed", chain / "killed")
        ]
        if trees[0] != trees[1]:
            self.fail(f"the sets prepared in {chain} differ")
        else:
            self.tally["prepared sets compared: equal"] += 1
        if len(self.lost) == failed:
            shutil.rmtree(chain)

    def everything(self) -> None:
        """Chains of all variants in turn until the time is over; between them everything else, once."""
        once: list[tuple[str, Callable[[], None]]] = [("prepare", self.prepare)]
        for variant in (VARIANTS[0], VARIANTS[3]):
            once += [(f"{fault}, {variant}", partial(self.fault, variant, fault)) for fault in FAULTS]
        once[6:6] = [("sweep", self.sweep), ("refusals", partial(self.refusals, VARIANTS[0]))]
        turn = 0
        while time.monotonic() < self.deadline:
            variant = VARIANTS[turn % len(VARIANTS)]
            for what, attempt in [(str(variant), partial(self.chain, variant)), *once[turn : turn + 1]]:
                attempt()
                print(f"{self.tally['kills']:4} kills, {len(self.lost)} lost: {what}", flush=True)
            turn += 1


FAULTS = ("full", "read-only", "NaN in a batch", "NaN in a gradient", "NaN in the EMA")


def report_of(campaign: Campaign, title: str, seconds: float) -> str:
    tally = campaign.tally
    lines = [f"# {title}", "", f"{tally['kills']} kills in {seconds:.0f} s; ", ""]
    lines[2] += "nothing was lost." if not campaign.lost else f"{len(campaign.lost)} times something was lost."
    lines += [f"- {what}: {count}" for what, count in sorted(tally.items()) if what != "kills"]
    lines += ["", *(f"LOST: {what}" for what in campaign.lost)]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="when to begin nothing new (10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1000), help="of the draws; any by default")
    args = parser.parse_args(argv)
    places = [str(ROOT / "src"), str(ROOT)]  # for ranks and loading processes, which start in other folders
    os.environ["PYTHONPATH"], sys.path[:0] = os.pathsep.join(places), places
    start = time.monotonic()
    torch.set_num_threads(1)
    DigitsData.load = few  # type: ignore[method-assign, assignment]
    folder = Path(tempfile.mkdtemp(prefix="chaos_"))
    campaign = Campaign(folder.resolve(), random.Random(args.seed), start + 60 * args.minutes)
    campaign.everything()
    report = report_of(campaign, f"Chaos, seed {args.seed}", time.monotonic() - start)
    out = ROOT / "outputs" / "chaos" / "report.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report)
    print(f"{report}\nwritten to {out}")
    if not campaign.lost:
        shutil.rmtree(folder)
    return 1 if campaign.lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
