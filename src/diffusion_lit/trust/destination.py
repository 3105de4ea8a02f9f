"""Where a run whose settings come from a file may write and send to: into its own folder, to the user's own server."""

import os
from pathlib import Path
from typing import Any

from diffusion_lit.trust.plain import printable

__all__ = ["check_destinations", "within_run"]

FOLDERS = ("folder", "dir", "dirpath", "save_dir", "default_root_dir")


def within_run(path: str, run_dir: object) -> str | None:
    """What follows a run's folder in a path of its settings, for the folder of another run to precede it.

    Such paths are interpolations that begin with the very text of `run_dir`; no other spelling of the folder counts.

    Returns:
        The rest, empty for the folder itself; None if the path is elsewhere.
    """
    if not isinstance(run_dir, str) or not run_dir or not path.startswith(run_dir):
        return None
    rest = path.removeprefix(run_dir)
    return rest if rest[:1] in ("", "/", os.sep) and ".." not in Path(rest).parts else None


def check_destinations(values: dict[str, Any], origin: str) -> None:
    """Refuse callbacks, loggers or a trainer that would write outside of the run's own folder, and other W&B servers.

    Raises:
        ValueError: if there is one; the message names the key.
    """
    run_dir = values.get("run_dir")

    def check(value: object, key: str, moves: bool = True) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                if name != "weights":  # of a feature extractor, which are read
                    check(part, f"{key}.{name}", moves)
        elif isinstance(value, list):
            for part in value:
                check(part, key, moves=False)  # what is in a list stays as it is in another run
        elif isinstance(value, str):
            path = Path(value)
            leads_away = path.is_absolute() or ".." in path.parts or key.rpartition(".")[2] in FOLDERS
            if leads_away and not (moves and within_run(value, run_dir) is not None):
                raise ValueError(
                    f"{origin}: {printable(key)} is {printable(value)}, which is outside of the run's folder "
                    f"{printable(run_dir)}; if you trust it, give {key}= yourself"
                )

    for group in ("callback", "logger", "trainer"):
        check(values.get(group), group)
    loggers = values.get("logger")
    for name, logger in loggers.items() if isinstance(loggers, dict) else ():
        if isinstance(logger, dict) and logger.get("settings") is not None:  # of `wandb.init`
            raise ValueError(
                f"{origin}: {printable(f'logger.{name}.settings')} is {printable(logger['settings'])}, by which "
                "figures and code could be sent to another server; if you trust it, give "
                f"+logger.{name}.settings= yourself"
            )
