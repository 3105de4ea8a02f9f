"""What a run says of itself: in its folder and its checkpoints, and to its loggers."""

import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, open_dict

from diffusion_lit.command_line.shell import own_folders
from diffusion_lit.command_line.yaml_text import yaml_text
from diffusion_lit.derived import distinct, without_repeats
from diffusion_lit.environment import git_state, machine, versions
from diffusion_lit.files import replacing, write_json
from diffusion_lit.logger.best_figures import BestFigures
from diffusion_lit.logger.csv import CSVLogger, read_table
from diffusion_lit.logger.event_file import continue_events
from diffusion_lit.logger.tensorboard import TensorBoardLogger
from diffusion_lit.logger.wandb import WandbLogger
from diffusion_lit.module import DiffusionModule
from diffusion_lit.run.resume import Origin
from diffusion_lit.run.settings import UNSEEN, plain_settings, under

__all__ = ["carried", "continue_loggers", "end_record", "figures_before", "finish_wandb", "run_name", "write_record"]

LONGEST_NAME = 120
PATCH = "code.patch"


def carried(
    cfg: DictConfig, overrides: Sequence[str], origin: Origin | None, class_names: list[str] | None
) -> dict[str, Any]:
    """What the run's checkpoints say of it (see `diffusion_lit.checkpoint`)."""
    return {
        "config": without_repeats(plain_settings(cfg)),
        "overrides": list(overrides),
        "started_in": os.getcwd(),
        "versions": versions(),
        "parent": str(origin.file.resolve()) if origin is not None else None,
        "class_names": class_names,
    }


def run_name(overrides: Sequence[str], cell: str | None, folder: str) -> str:
    """A name by which a run is known among others: what its command line says of training, or its folder's name.

    Args:
        overrides: the command line.
        cell: in a sweep the name of the job's folder, which is the run's.
        folder: the run's folder.
    """
    if cell is not None:
        return cell
    told = [text for text in overrides if not under(text.lstrip("+~"), (*UNSEEN, "hydra"))]
    name = " ".join(told) or Path(folder).name
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def continue_loggers(cfg: DictConfig, origin: Origin | None, name: str) -> None:
    """Let the loggers of a resumed run continue where its parent's had come to, on the same axis.

    Args:
        cfg: the settings, which are changed.
        origin: what is resumed.
        name: what W&B is to call the run, where `logger.wandb.name` is `auto`.
    """
    loggers = cfg.logger or {}
    wandb = loggers.get("wandb")
    if wandb is not None:
        new = wandb.get("id") == "new"
        with open_dict(cfg):
            known = origin.recorded.get("wandb") if origin is not None else None
            wandb.id = known if wandb.get("id") is None else None if new else wandb.id
            if wandb.get("name") == "auto":
                wandb.name = name if known is None or wandb.id != known else name_of_earlier(origin)
    tensorboard = loggers.get("tensorboard")
    if origin is not None and tensorboard is not None:
        with open_dict(cfg):
            tensorboard.purge_step = origin.step + 1


def name_of_earlier(origin: Origin | None) -> str | None:
    """W&B's name of the run that is resumed, as far as its settings say it; None leaves it as it is."""
    loggers = None if origin is None else origin.recorded["config"].get("logger")
    return ((loggers or {}).get("wandb") or {}).get("name")


def figures_before(origin: Origin | None) -> list[dict[str, Any]]:
    """The rows of figures that a resumed run begins with: its parent's up to the checkpoint's step.

    Raises:
        ValueError: if the parent's table is damaged.
    """
    if origin is None:
        return []
    return [row for row in read_table(origin.run / "metrics.csv") if row["step"] <= origin.step]


def write_record(
    cfg: DictConfig,
    module: DiffusionModule,
    trainer: Trainer,
    origin: Origin | None,
    earlier: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Write what the run is, and the figures that its parent had (`figures_before`). Returns what is in run.json."""
    folder = Path(cfg.run_dir)
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.begin_with(earlier)
        if origin is not None and isinstance(logger, TensorBoardLogger):
            continue_events(logger, origin.run / "tensorboard", origin.step)
    record: dict[str, Any] = {
        "parent": module.record["parent"],
        "step": 0 if origin is None else origin.step,
        "command": ["python", "-m", "diffusion_lit.train", *own_folders("train"), *module.record["overrides"]],
        "started_in": module.record["started_in"],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "process": os.getpid(),
        "versions": module.record["versions"],
        "machine": machine() | {"processes": trainer.world_size},
        "parameters": sum(p.numel() for p in module.denoiser.parameters()),
        "git": None,
    }
    patch = None
    if (state := git_state(module.record["started_in"])) is not None:
        record["git"] = dict(state.facts)
        if state.patch:
            patch, record["git"]["patch"] = folder / PATCH, PATCH
            with replacing(patch) as file:
                file.write(state.patch)
    with replacing(folder / "config.yaml") as file:
        file.write(yaml_text(module.record["config"]).encode())
    known = None if origin is None else origin.recorded.get("wandb")
    tell_loggers(cfg, module, trainer, record, earlier, patch, known)
    write_json(record, folder / "run.json")
    return record


def tell_loggers(
    cfg: DictConfig,
    module: DiffusionModule,
    trainer: Trainer,
    record: dict[str, Any],
    table: Sequence[Mapping[str, Any]],
    patch: Path | None,
    known: str | None,
) -> None:
    """Give loggers the run's settings, its record, and the best figures of `table`, which it begins with.

    `known` is W&B's name of the run that is resumed.
    """
    settings = distinct(module.record["config"])
    facts = {name: value for name, value in record.items() if name != "process"}
    facts |= {"command": shlex.join(record["command"]), "overrides": module.record["overrides"], "folder": cfg.run_dir}
    for logger in trainer.loggers:
        best = BestFigures(directions(cfg, trainer))
        for row in table:
            best.update({name: value for name, value in row.items() if name != "step"}, row["step"])
        if isinstance(logger, WandbLogger):
            continues = bool(table) and logger.version == known
            logger.begin(settings, facts, best, patch, table[-1] if continues else None)
            record["wandb"] = module.record["wandb"] = logger.version
        elif isinstance(logger, TensorBoardLogger):
            logger.begin(settings, facts, best, cfg.objective)
        else:
            logger.log_hyperparams(settings)


def directions(cfg: DictConfig, trainer: Trainer) -> dict[str, str]:
    """Which values are better, of the figures that the settings say it of: the objective, what checkpoints follow."""
    followed = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor is not None]
    modes: dict[str, str] = {str(callback.monitor): callback.mode for callback in followed}
    return modes | {cfg.objective: cfg.objective_mode}


def end_record(cfg: DictConfig, trainer: Trainer, record: dict[str, Any]) -> None:
    """Write, on the first rank, that the run has ended; W&B keeps its checkpoints, where that is asked for."""
    if not trainer.is_global_zero:
        return
    write_json(record | {"finished": trainer.global_step}, Path(cfg.run_dir) / "run.json")
    folder = Path(cfg.run_dir) / "checkpoints"
    files = [file for file in (folder / "last.ckpt", folder / "best.ckpt") if file.is_file()]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.keep_model(files, trainer.global_step)


def finish_wandb(trainer: Trainer) -> None:
    """End the W&B run, with what is still to be sent: the next one in this process is another."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.finish(failed=not trainer.state.finished)
