"""A command as a call in a running program: a notebook, a script, another tool."""

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from diffusion_lit.command_line.check import check_settings
from diffusion_lit.command_line.command import CONFIG_FOLDER, understood
from diffusion_lit.command_line.composition import explain_composition
from diffusion_lit.command_line.job import finish_job, in_use, listed_groups
from diffusion_lit.command_line.mistake import MISTAKES, explain
from diffusion_lit.command_line.shell import by_key, command_line, quote
from diffusion_lit.distributed.ranks import join, launched_by
from diffusion_lit.files import remove_empty
from diffusion_lit.terminal.interruption import Interrupted

__all__ = ["call"]

T = TypeVar("T")


def call(
    name: str,
    overrides: Sequence[str],
    task: Callable[[DictConfig, list[str]], T],
    config_dir: str | Path | None = None,
) -> T:
    """Do what `python -m diffusion_lit.NAME OVERRIDES` does, by the same rules, in this process.

    Hydra's state, handlers of signals, filters of warnings, a W&B run and a group of processes of the program's own are
    afterwards what they were before. What the log has is left to the program: `logging.basicConfig(level=logging.INFO)`
    shows it.

    Args:
        name: of the command.
        overrides: its arguments, such as `schedule=cosine`.
        task: does the work, from its settings and from `overrides` as Hydra takes them.
        config_dir: a folder of one's own configurations, as `--config-dir` names it.

    Raises:
        ValueError: for what the command would call a mistake, with the same words; or if several processes are asked
            for, which only a command or a launcher can start.
        FileNotFoundError: if a file or folder is missing.
        KeyboardInterrupt: after Control-C, or a notebook's "interrupt"; what is saved, and how to continue, is said.
        SystemExit: after another signal that asks to stop, with the exit code of the command.
    """
    check_list(name, overrides)
    elsewhere = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise NotADirectoryError(f"config_dir={config_dir} is not a folder: give the one that your groups are in")
        elsewhere.append(f"hydra.searchpath=[{quote(str(Path(config_dir).resolve()), always=True)}]")
    arguments = [*understood(name, [*overrides, *elsewhere]), "hydra.output_subdir=null"]
    done: list[T | Exception] = []
    around = in_use()

    def work(cfg: DictConfig) -> None:
        try:
            check_settings(cfg, name, listed_groups(name))
            refuse_processes(cfg, name, overrides)
            done.append(task(cfg, list(HydraConfig.get().overrides.task)))
        except Exception as error:
            done.append(error)  # Hydra would print it too
            if (folder := Path(HydraConfig.get().runtime.output_dir)) != Path.cwd():
                remove_empty(folder)

    try:
        with unchanged(), own_hydra(name) as hydra:
            hydra.run(name, work, arguments, with_log_configuration=False)
            [result] = done
            if isinstance(result, Exception):
                raise result
            return result
    except Interrupted as stop:
        if stop.number == signal.SIGINT:
            raise KeyboardInterrupt(str(stop)) from None
        print(f"\n{stop}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        composed = bool(done) or not isinstance(error, HydraException)
        message = explain(error) if composed else explain_composition(error, name, overrides) or str(error)
        if message is None or isinstance(error, MISTAKES):
            raise
        raise ValueError(message) from error
    finally:
        if launched_by() is None:
            finish_job(around)


def check_list(name: str, overrides: Sequence[str]) -> None:
    """Raise a ValueError if `overrides` are not a list of `KEY=VALUE`, or have an option of the shell's."""
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise ValueError(f'{name} takes a list of settings, such as ["seed=1", "device=cpu"], got {overrides!r}')
    if options := [override for override in overrides if override.startswith("-")]:
        raise ValueError(
            f"{options[0]} is for the command line: from Python, config_dir=FOLDER takes the place of --config-dir, "
            "and a loop that of -m"
        )


def refuse_processes(cfg: DictConfig, name: str, overrides: Sequence[str]) -> None:
    """Refuse to start further processes, which would run the program, or the notebook's kernel, from its beginning.

    Those of a launcher are there already: connect them.
    """
    import torch

    if launched_by() is not None:
        if not torch.distributed.is_initialized():
            join()
        return
    key, asked = ("trainer.devices", cfg.trainer.devices) if name == "train" else ("devices", cfg.get("devices", 1))
    count = len(asked) if not isinstance(asked, int | str) else asked
    if count in ("auto", "-1", -1):
        count = max(1, torch.cuda.device_count())
    if str(count) != "1":
        raise ValueError(
            f"{key}={asked} takes several processes, each of which would run this whole program, or notebook, again. "
            f"Give the command\n  {command_line(name, by_key(overrides))}\nand open its folder with dl.load(FOLDER); "
            f"or start the script with torchrun --nproc-per-node {count} SCRIPT.py"
        )


@contextmanager
def own_hydra(name: str) -> Iterator[Hydra]:
    """Hydra over conf/ for a while, whatever the program around does with its own."""
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), name, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    finally:
        GlobalHydra.instance().hydra = around


@contextmanager
def unchanged() -> Iterator[None]:
    """Filters of warnings, and where they go, are put back at the end."""
    captured = warnings.showwarning.__module__ == "logging"
    with warnings.catch_warnings():
        yield
        if not captured:
            logging.captureWarnings(False)
