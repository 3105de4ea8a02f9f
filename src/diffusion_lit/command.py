"""What the commands share: where the configuration is, and how user errors are reported.

Imports only Hydra, so that `--help` and `--cfg job` answer at once.
"""

import functools
import multiprocessing
import os
import pickle
import re
import secrets
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf, read_write

from diffusion_lit.ranks import from_first_rank, join, outlive_nobody
from diffusion_lit.shell import quote, read_arguments

__all__ = ["CONFIG_FOLDER", "command"]

PACKAGE = Path(__file__).parent
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
"""Inside an installed package, or at the top of a checkout."""

MISTAKES = (ValueError, FloatingPointError, FileNotFoundError, NotADirectoryError)
"""Errors whose message is written for the user: it is shown alone, and the traceback goes to a file."""

CONNECTIONS = Path(multiprocessing.__file__).parent

# When a run starts, for the name of its folder: the same on all its ranks. Six random digits keep apart runs that start
# in the same second.
OmegaConf.register_new_resolver(
    "stamp",
    lambda: from_first_rank("STAMP", lambda: f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"),
    use_cache=True,
    replace=True,
)
# A job's folder in a sweep is named by its overrides: without slashes and quotes, and cut to what file systems take.
OmegaConf.register_new_resolver(
    "folder_name",
    lambda text: re.sub(r"[/\\]", "-", re.sub("['\"]", "", text)).encode()[:100].decode(errors="ignore"),
    replace=True,
)
OmegaConf.register_new_resolver("product", lambda a, b: a * b, replace=True)


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of a configuration into the main function of `python -m diffusion_lit.NAME`.

    A mistake of the user's ends the process with exit code 1 and its message alone; HYDRA_FULL_ERROR=1 shows the
    traceback.

    Args:
        name: the top-level configuration, `conf/NAME.yaml`.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(task)
        def run(cfg: DictConfig) -> None:
            try:
                refuse_unknown_keys(cfg, name)
                prepare_subprocesses()
                task(cfg)
            except BaseException as error:
                if (exit_code := getattr(error, "exit_code", None)) is not None:  # an interruption, not a fault
                    print(f"\n{error}", file=sys.stderr)
                    sys.exit(exit_code)
                mistake = explain(error)
                if mistake is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                    raise
                record = Path(HydraConfig.get().runtime.output_dir) / "error.log"
                details = "run again with HYDRA_FULL_ERROR=1"
                with suppress(OSError):  # a disk that is full, or read-only
                    record.write_text(traceback.format_exc())
                    details = f"{record}, or {details}"
                print(f"\nerror: {mistake}\n(details: {details})", file=sys.stderr)
                sys.exit(1)
            finally:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    finish_job()

        start = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=name)(run)

        @functools.wraps(start)
        def main() -> None:
            try:
                sys.argv[1:] = read_arguments(sys.argv[1:])
                outlive_nobody()
                join()
            except ValueError as error:
                print(f"\nerror: {error}", file=sys.stderr)
                sys.exit(1)
            start()

        return main

    return decorate


def explain(error: BaseException) -> str | None:
    """The message for the user, if `error` is a mistake of theirs."""
    where = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        where = where or next(
            (f" (in {line.split()[-1]})" for line in str(error).splitlines() if "full_key" in line), ""
        )
        error = error.__cause__
        if isinstance(error, TypeError):  # an argument that the class does not have
            return f"{error}{where}"
    if type(error).__name__ == "MisconfigurationException":  # Lightning's; not imported, for the sake of start-up
        return f"{error}{where}"
    if type(error).__module__.startswith("wandb."):
        return f"W&B: {error} Or set logger.wandb.offline=true, which needs neither network nor key"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}= is not given: see --help"
    if lost_worker(error):
        return (
            f"a data loading process was ended from outside ({str(error) or type(error).__name__}). Most often memory "
            "ran out: use fewer data.num_workers or a smaller data.batch_size. What was saved is whole: continue with "
            "resume=auto"
        )
    if isinstance(error, MISTAKES):
        # A data loader's worker sends its whole traceback as the message; the message proper comes last.
        return str(error).rsplit(f"\n{type(error).__name__}: ", 1)[-1].strip() + where
    return None


def lost_worker(error: BaseException) -> bool:
    """Whether a data loader found one of its processes gone.

    torch says so itself where it already knows; before that, the connection over which a batch comes breaks, wherever
    the process was: it refuses, resets, or ends (`EOFError`).
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith(("DataLoader worker (pid", "Pin memory thread exited"))
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    broken = isinstance(error, EOFError | OSError | pickle.UnpicklingError)
    return broken and any(file.name == "dataloader.py" for file in files) and files[-1].parent == CONNECTIONS


def finish_job() -> None:
    """Leave nothing of this job to the sweep's next one: no process group, no W&B run."""
    if torch := sys.modules.get("torch"):
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for key in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
    if wandb := sys.modules.get("wandb"):
        wandb.finish()


def refuse_unknown_keys(cfg: DictConfig, name: str) -> None:
    """Hydra takes any `+key=value`; one that nothing reads must not pass for a setting.

    Raises:
        ValueError: if `cfg` has a key that `conf/NAME.yaml` does not.
    """
    own = OmegaConf.load(CONFIG_FOLDER / f"{name}.yaml")
    groups = {key for entry in own.defaults if isinstance(entry, DictConfig) for key in entry}
    if unknown := sorted(str(key) for key in cfg.keys() - own.keys() - groups):
        raise ValueError(f"nothing reads {', '.join(unknown)}: see --cfg job for what there is")


def prepare_subprocesses() -> None:
    """Let the processes that Lightning starts for `trainer.devices=N` do this job, in its folder.

    Lightning runs `sys.argv` again, which in a multirun would be every job of the sweep in each process; and it sets
    marks around the folder's name without quoting what is in it.
    """
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN:
        sys.argv[1:] = list(config.overrides.task)
    with read_write(config):  # type: ignore[arg-type]
        config.run.dir = quote(config.runtime.output_dir, always=True)[1:-1]
