"""What an error says to the user, where it is a mistake of theirs."""

import multiprocessing
import pickle
import traceback
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import MissingMandatoryValue

__all__ = ["MISTAKES", "explain"]

MISTAKES = (ValueError, FloatingPointError, FileNotFoundError, NotADirectoryError)
"""Errors whose message is written for the user: it is shown alone, and the traceback goes to a file."""

UNFOUND = "start Python where your module is, or with PYTHONPATH=FOLDER before the command"
CONNECTIONS = Path(multiprocessing.__file__).parent


def explain(error: BaseException) -> str | None:
    """The message for the user, if `error` is a mistake of theirs."""
    where = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        keys = [line.split()[-1] for line in str(error).splitlines() if "full_key" in line]
        where = where or (f" (in {keys[0]})" if keys else "")
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
            "resume=RUN"
        )
    if isinstance(error, ImportError) and str(error).startswith("Error loading"):  # Hydra's, of a class
        return f"{' '.join(str(error).splitlines()[:2])}{where}: {UNFOUND}"
    if isinstance(error, MISTAKES):
        # A data loader's worker sends its whole traceback as the message; the message proper comes last.
        return str(error).rsplit(f"\n{type(error).__name__}: ", 1)[-1].strip() + where
    if where:  # before any work
        return f"its settings cannot be ({type(error).__name__}: {error}){where}: see --help"
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
