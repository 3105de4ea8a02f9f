"""One job of a multirun: its record, what it needs of the process that does one after another, and leaves there."""

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from diffusion_lit.command_line.catalogue import groups_of
from diffusion_lit.command_line.shell import quote
from diffusion_lit.distributed.ranks import be_parent, is_first
from diffusion_lit.files import remove_empty, write_json

__all__ = [
    *(
        "RECORD",
        "begin_job",
        "end_job",
        "finish_job",
        "forget",
        "in_sweep",
        "in_use",
        "job_name",
        "listed_groups",
        "prepare_subprocesses",
        "set_apart",
    ),
    "read_record",
]

RECORD = "job.json"
PARSER = OverridesParser.create()
PATIENCE = 5.0  # seconds that further ranks have to end after the first


def job_name() -> str | None:
    """The name of the running job in its sweep; None outside of one."""
    return Path(HydraConfig.get().runtime.output_dir).name if in_sweep() else None


def sweep_name() -> str | None:
    return Path(HydraConfig.get().runtime.output_dir).parent.name if in_sweep() else None


def in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def begin_job() -> None:
    """Record that the job of this process has begun."""
    config = HydraConfig.get()
    fixed = set(config.job.config.override_dirname.exclude_keys)
    values = {
        override.key_or_group: override.get_value_element_as_str()
        for override in PARSER.parse_overrides(list(config.overrides.task))
        if override.key_or_group not in fixed
    }
    folder = Path(config.runtime.output_dir)
    earlier = read_record(folder)
    write_record(folder, {**earlier, "values": values, "status": "cut", "error": "", "began": time.time()})


def end_job(error: str = "", figures: dict[str, float] | None = None, trained: bool = True) -> None:
    """Record how the job of this process ended.

    Args:
        error: why it failed.
        figures: `best` and `last` of the objective.
        trained: whether there was anything left to do.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    record = read_record(folder)
    spent = time.time() - record.pop("began")
    seconds = record.get("seconds", 0.0) + (spent if trained else 0)
    status = "failed" if error else "finished"
    write_record(folder, {**record, "status": status, "error": error, "seconds": seconds, **(figures or {})})


def read_record(folder: Path) -> dict[str, Any]:
    file = folder / RECORD
    return json.loads(file.read_text()) if file.is_file() else {}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    if is_first():
        write_json(record, folder / RECORD)


def set_apart(cfg: DictConfig) -> None:
    """In a sweep of a command that writes to `out`, let this job write to a folder of its own in there."""
    if in_sweep() and "out" in cfg and cfg.out == HydraConfig.get().sweep.dir:
        cfg.out = str(Path(cfg.out, str(job_name())))


def prepare_subprocesses(name: str, cfg: DictConfig) -> None:
    """Let the processes that Lightning starts for `trainer.devices=N` do this job, in its folder.

    Lightning runs this process's module with `sys.argv` again, which in a multirun would be every job of the sweep in
    each process, or a launcher's own program; and it sets marks around the folder's name without quoting what is in it.

    Args:
        name: of the command, `python -m diffusion_lit.NAME`.
        cfg: the job's settings.
    """
    be_parent()
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN:
        given = [override for override in config.overrides.task if not override.startswith("out=")]
        sys.argv[1:] = [*given, f"out={quote(cfg.out)}"] if isinstance(cfg.get("out"), str) else given
        sys.modules["__main__"].__spec__ = importlib.util.find_spec(f"diffusion_lit.{name}")
    with read_write(config):  # type: ignore[arg-type]
        config.run.dir = quote(config.runtime.output_dir, always=True)[1:-1]


def listed_groups(command: str) -> set[str]:
    """The groups of which the running command chooses a list of members: of these alone Hydra keeps no record."""
    return set(groups_of(command)) - set(HydraConfig.get().runtime.choices)


def forget(folder: Path, name: str) -> bool:
    """Remove the folder of a run that ended before it began: it holds no more than Hydra's record of the command."""
    if folder == Path.cwd() or not is_first() or {path.name for path in folder.iterdir()} - {".hydra", f"{name}.log"}:
        return False
    with suppress(OSError):
        shutil.rmtree(folder / ".hydra", ignore_errors=True)
        (folder / f"{name}.log").unlink(missing_ok=True)
        remove_empty(folder)
    return True


def in_use() -> set[str]:
    """Of what a job may leave in its process, that which is there: a `group` of processes, a `run` of W&B."""
    torch, wandb = sys.modules.get("torch"), sys.modules.get("wandb")
    group, run = torch and torch.distributed.is_initialized(), wandb and wandb.run is not None
    return {name for name, there in (("group", group), ("run", run)) if there}


def finish_job(around: Collection[str] = ()) -> None:
    """Leave nothing of this job to what comes after it: no process group, no further ranks, no W&B run.

    Args:
        around: what was `in_use` before the job, which is not the job's.
    """
    if "group" not in around and (torch := sys.modules.get("torch")):
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for key in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
        end_ranks()
    if "run" not in around and (wandb := sys.modules.get("wandb")):
        wandb.finish()


def end_ranks() -> None:
    """End what Lightning has started for a job, and its watch over them.

    That kills the process it runs in within 5 s of a rank's failure: here it would be in the middle of the next job.
    """
    import subprocess
    import threading

    from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            ranks, thread._child_processes = thread._child_processes, []
            for rank in ranks:
                try:
                    rank.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    rank.kill()


OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
