"""A sweep: the names of its jobs, how it is found again, and the table at its end."""

import csv
import hashlib
import io
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.job import RECORD, read_record
from diffusion_lit.command_line.sample_settings import settings_of_record
from diffusion_lit.command_line.shell import by_key, command_line, is_multirun, own_folders, quote
from diffusion_lit.command_line.slips import options_and_settings
from diffusion_lit.files import remove_leftovers, replacing, write_json

__all__ = ["SweepTable", "find_sweep", "folder_name", "name_jobs", "repeat_command"]

SWEEP = "sweep.json"
NOT_SWEPT = "hydra.job.config.override_dirname.exclude_keys"
LONGEST = 120  # bytes of a folder's name; file systems take 255
PARSER = OverridesParser.create()


def name_jobs(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command; in a sweep, with word for all launchers of which keys have but one value.

    Hydra's `hydra.job.override_dirname`, from which a job's folder has its name, leaves these out.
    """
    arguments = list(arguments)
    if not is_multirun(arguments) or any(argument.startswith(f"{NOT_SWEPT}=") for argument in arguments):
        return arguments
    fixed = set()
    for argument in options_and_settings(arguments)[1]:
        if not argument.startswith("hydra"):
            try:
                override = PARSER.parse_override(argument)
            except HydraException:  # Hydra itself says what is wrong
                return arguments
            if not override.is_sweep_override():
                fixed.add(override.key_or_group)
    return [*arguments, f"{NOT_SWEPT}=[{','.join(map(quote, sorted(fixed)))}]"]


def folder_name(text: str) -> str:
    """`text`, what is swept in a job, as the name of a folder that neither a shell nor Hydra reads otherwise.

    Where characters are replaced or cut, a checksum of the whole keeps different jobs apart.
    """
    name = re.sub(r"[^\w.+-]+", "-", re.sub(r"['\"\[\](){}\s]", "", text), flags=re.ASCII).strip("-+.")
    if name != text or len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name or "job"


def identity(arguments: Sequence[str]) -> list[str]:
    """What makes a sweep the same when it is run again: its jobs' settings, in any order."""
    aside = re.compile(r"hydra|(allow|resume|sweep\.trials|sweep\.parallel)=")
    return sorted(setting for setting in options_and_settings(arguments)[1] if not aside.match(setting))


def find_sweep(output_root: str) -> str | None:
    """The name of the newest sweep below `output_root` that the running command is a repetition of."""
    for file in sorted(Path(output_root).glob(f"multirun/*/{SWEEP}"), reverse=True):
        if identity(json.loads(file.read_text())["arguments"]) == identity(sys.argv[1:]):
            return file.parent.name
    return None


def repeat_command(sweep: Path) -> str:
    """The command that does what a sweep has left to do; it is given in the folder where the sweep was started."""
    options, settings = options_and_settings(json.loads((sweep / SWEEP).read_text())["arguments"])
    kept = [setting for setting in settings if not setting.startswith((f"{NOT_SWEPT}=", "resume="))]
    if own_folders("train"):  # which are in the printed command already
        options = [option for option in options if not option.startswith(("-cd", "--config-d"))]
    return f"{command_line('train', {**by_key(kept), 'resume': 'auto'})} {shlex.join(options)}"


class SweepTable(Callback):
    """Ends a sweep with a table of its jobs, the best marked, as sweep.csv and sweep.md; with code 1 if any failed.

    The table has all jobs of the sweep's folder, those of an earlier start among them.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        remove_leftovers(folder)
        write_json({"arguments": sys.argv[1:]}, folder / SWEEP)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self.conclude(config)
        except Exception as error:  # of which Hydra would make a warning, and the exit code 0
            print(f"\nerror: the sweep's table could not be made: {error}", file=sys.stderr)
            sys.exit(1)

    def conclude(self, config: DictConfig) -> None:
        """Write the table, and end the process with code 1 if a job failed."""
        sweep = Path(config.hydra.sweep.dir)
        records = {file.parent: read_record(file.parent) for file in sorted(sweep.glob(f"*/{RECORD}"))}
        sign = {"min": 1, "max": -1}[config.objective_mode]
        done = [job for job, record in records.items() if record["status"] == "finished" and "best" in record]
        best = min(done, key=lambda job: sign * records[job]["best"], default=None)
        table = tabulate(records, config.objective, best)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        markdown = "".join(f"| {' | '.join(row)} |\n" for row in [table[0], ["---"] * len(table[0]), *table[1:]])
        for name, content in (("sweep.csv", text.getvalue()), ("sweep.md", markdown)):
            with replacing(sweep / name) as file:
                file.write(content.encode())
        print(f"\n{markdown}\nin {sweep / 'sweep.md'} and {sweep / 'sweep.csv'}")
        if best is not None:
            recorded: Any = OmegaConf.load(kept) if (kept := best / "config.yaml").is_file() else {}
            model = {"ckpt": checkpoint_of(best, config), **settings_of_record(recorded)}
            print(f"Sample from the best\n  {command_line('sample', model)}")
        if left := [job for job, record in records.items() if record["status"] != "finished"]:
            said = "".join(f"\n  {job.name}: {records[job]['error'] or 'was cut'}" for job in left)
            again = f"To try these again\n  {repeat_command(sweep)}"
            print(f"\nerror: {len(left)} of {len(records)} jobs failed:{said}\n{again}", file=sys.stderr)
            sys.stdout.flush()
            sys.exit(1)


def tabulate(records: dict[Path, dict[str, Any]], objective: str, best: Path | None) -> list[list[str]]:
    """The table of a sweep, its header first."""
    keys = list(dict.fromkeys(key for record in records.values() for key in record["values"]))
    head = ["", "job", *keys, "status", f"best {objective}", f"last {objective}", "seconds", "folder"]
    rows = [
        [
            "best" if folder == best else "",
            folder.name,
            *(str(record["values"].get(key, "")) for key in keys),
            record["status"],
            *(f"{record[name]:.6g}" if name in record else "" for name in ("best", "last")),
            f"{record['seconds']:.1f}" if "seconds" in record else "",
            str(folder),
        ]
        for folder, record in records.items()
    ]
    return [head, *rows]


def checkpoint_of(job: Path, config: DictConfig) -> Path:
    """The checkpoint that has a job's best figure, where one was kept for it; else the job's last."""
    kept = OmegaConf.select(config, "callback.best_checkpoint")
    file = job / "checkpoints" / "best.ckpt"
    same = kept is not None and (kept.monitor, kept.mode) == (config.objective, config.objective_mode)
    return (file if same and file.is_file() else job).resolve()


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
