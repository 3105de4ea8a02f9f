"""What the commands share: configuration, user errors. Imports only Hydra: `--help` and `--cfg job` answer at once."""

import functools
import os
import secrets
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import hydra._internal.utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.catalogue import CONFIG_FOLDER
from diffusion_lit.command_line.check import check_settings
from diffusion_lit.command_line.composition import check_choices, report
from diffusion_lit.command_line.help import answer
from diffusion_lit.command_line.job import (
    begin_job,
    end_job,
    finish_job,
    forget,
    in_sweep,
    listed_groups,
    prepare_subprocesses,
    set_apart,
)
from diffusion_lit.command_line.mistake import explain
from diffusion_lit.command_line.output import outlive_readers
from diffusion_lit.command_line.shell import is_multirun, read_arguments
from diffusion_lit.command_line.slips import options_and_settings, refuse_slips
from diffusion_lit.command_line.sweep import find_sweep, name_jobs, repeat_command
from diffusion_lit.distributed.ranks import from_first_rank, join, launched_by, outlive_nobody
from diffusion_lit.files import UnwritableError
from diffusion_lit.out_of_memory import is_out_of_memory

__all__ = ["CONFIG_FOLDER", "command", "understood"]

REMEDIES = {
    "train": " (hydra.run.dir=DIR), and continue with {}",
    "prepare": " (out=DIR), and run the same command again. Finished shards are kept",
    "evaluate": " (out=DIR; cache=DIR for features of real images), and run the same command again",
}
"""What to do, after a command could not write a file; after any other, type it again."""
LESS = {
    "train": "half of data.batch_size with trainer.accumulate_grad_batches=2 is the same training; "
    "execution.gradient_checkpointing=true, fewer data.num_workers or a smaller model take less, too. What was saved "
    "is whole: continue with resume=RUN",
    "prepare": "use fewer workers, and run the same command again. Finished shards are kept",
}
"""What takes less memory; in any other command, less at a time."""


def new_stamp() -> str:
    """When a run starts, for the name of its folder; six random digits keep apart those of the same second."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"


# The same on all ranks of a run.
OmegaConf.register_new_resolver("stamp", lambda: from_first_rank("STAMP", new_stamp), use_cache=True, replace=True)
# As `stamp`, for a sweep's folder; a sweep that is run again with resume=auto finds the one that it had.
OmegaConf.register_new_resolver(
    "sweep_stamp",
    lambda output_root, resume: from_first_rank(
        "STAMP", lambda: (find_sweep(output_root) if resume == "auto" else None) or new_stamp()
    ),
    use_cache=True,
    replace=True,
)
OmegaConf.register_new_resolver("product", lambda a, b: a * b, replace=True)
# `number`, or a positive limit that is less: null, or what is not a number, is none.
OmegaConf.register_new_resolver(
    "at_most",
    lambda number, limit: limit if isinstance(limit, int) and 0 < limit < number else number,
    replace=True,
)


def command(name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a configuration into the main function of `python -m diffusion_lit.NAME`.

    A mistake of the user's ends the process with exit code 1 and its message alone; HYDRA_FULL_ERROR=1 shows the
    traceback. In a sweep of trainings it ends the job, and the others are done.

    Args:
        name: the top-level configuration, `conf/NAME.yaml`.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def run(cfg: DictConfig) -> Any:
            contained = in_sweep() and name == "train"  # whose sweeps keep records and end with a table
            try:
                if contained:
                    begin_job()
                check_settings(cfg, name, listed_groups(name))
                set_apart(cfg)
                prepare_subprocesses(name, cfg)
                return task(cfg)
            except BaseException as error:
                folder = Path(HydraConfig.get().runtime.output_dir)
                if (exit_code := getattr(error, "exit_code", None)) is not None:  # an interruption, not a fault
                    again = f"\nThe whole sweep:\n  {repeat_command(folder.parent)}" if contained else ""
                    print(f"\n{error}{again}", file=sys.stderr)
                    sys.exit(exit_code)
                mistake = explain(error)
                if isinstance(error, UnwritableError):
                    saved = not contained and any((folder / "checkpoints").glob("*.ckpt"))
                    remedy = REMEDIES.get(name, " (out=DIR), and run the same command again")
                    mistake = f"{error}{remedy.format(shlex.quote(f'resume={folder}') if saved else 'resume=auto')}"
                if is_out_of_memory(error):
                    [*_, why] = str(error).strip().splitlines() or [type(error).__name__]
                    less = LESS.get(name, "ask for less at a time, or end what else uses it")
                    mistake = f"there is not enough memory ({why}): {less}"
                full = os.environ.get("HYDRA_FULL_ERROR") == "1"
                if not isinstance(error, Exception) or ((mistake is None or full) and not contained):
                    raise
                details = "run again with HYDRA_FULL_ERROR=1"
                with suppress(OSError):  # a disk that is full, or read-only
                    if contained or not (folder == Path.cwd() or forget(folder, name)):
                        (folder / "error.log").write_text(traceback.format_exc())
                        details = f"{folder / 'error.log'}, or {details}"
                if mistake is None or full:
                    traceback.print_exc()
                mistake = mistake or f"{type(error).__name__}: {error}"
                print(f"\nerror: {mistake}\n(details: {details})", file=sys.stderr)
                if not contained:
                    sys.exit(1)
                end_job(mistake)
                return None
            finally:
                if in_sweep():
                    finish_job()

        start = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=name)(run)

        @functools.wraps(start)
        @stoppable
        def main() -> None:
            outlive_readers()
            try:
                if answer(name, sys.argv[1:]):
                    return
                sys.argv[1:] = name_jobs(understood(name, sys.argv[1:]))
                refuse_launched_sweep(sys.argv[1:])
                outlive_nobody()
                join()
            except ValueError as error:
                print(f"\nerror: {error}", file=sys.stderr)
                sys.exit(1)
            hydra._internal.utils.run_and_report = functools.partial(report, name)
            start()

        return main

    return decorate


def stoppable(main: Callable[[], None]) -> Callable[[], None]:
    """`main`, ended without a traceback by a Control-C where nothing else takes it: at the start, or the second one."""

    def stopped() -> None:
        try:
            main()
        except KeyboardInterrupt:
            print("\nstopped by SIGINT: give the same command again", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return stopped


def refuse_launched_sweep(arguments: Sequence[str]) -> None:
    """Raise a ValueError for a sweep in several processes that a launcher has started: its jobs take one and more."""
    if is_multirun(arguments) and (launcher := launched_by()):
        raise ValueError(
            f"{launcher} has started several processes, and a sweep does one job after another: give this command "
            f"without {launcher}, and each job starts its own processes (trainer.devices=N)"
        )


def understood(name: str, typed: Sequence[str]) -> list[str]:
    """What was typed after a command, for Hydra; a ValueError for a slip, with what may have been meant."""
    arguments = choose_none(typed)
    refuse_slips(name, arguments)
    options, settings = options_and_settings(arguments)  # in this order argparse takes them all
    arguments = read_arguments([*options, *settings])
    check_choices(name, arguments)
    return arguments


def choose_none(arguments: Sequence[str]) -> list[str]:
    """`logger=null` as `logger=[]`: Hydra takes null only for a group of which one member is chosen."""
    return ["logger=[]" if argument == "logger=null" else argument for argument in arguments]
