"""The figures of a run in one table."""

import csv
import io
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from diffusion_lit.files import replacing

__all__ = ["CSVLogger", "newest_value", "read_table"]


class CSVLogger(Logger):
    """Writes `folder`/metrics.csv: a row for each step with a figure, a column for each figure, in the order of steps.

    The table is never cut: it is written beside its place and renamed. A run that is resumed begins with the rows that
    its parent had up to that step, so that every figure of a model's whole life is in its newest table.

    Args:
        folder: where the table goes.
        flush_seconds: the time between two writings; it is also written with every checkpoint, and at the end.
    """

    def __init__(self, folder: str, flush_seconds: float = 30.0) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_seconds = flush_seconds
        self.rows: dict[int, dict[str, Any]] = {}
        self.written = time.monotonic()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def log_dir(self) -> str:
        return str(self.path.parent)

    def begin_with(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take over the rows of an earlier table, as `read_table` gives them."""
        self.rows = {row["step"]: row for row in rows}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They are in the run's config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self.rows.setdefault(int(step or 0), {"step": int(step or 0)})
        row |= {name: float(value) for name, value in metrics.items()}
        if time.monotonic() - self.written > self.flush_seconds:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        names = {name: None for row in self.rows.values() for name in row}
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *sorted(names.keys() - {"step"})], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[step] for step in sorted(self.rows))
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())
        self.written = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.rows:
            self.save()


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of figures, `step` as an integer; a last one that was cut is left out.

    Raises:
        ValueError: if the file is damaged in another way.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        try:
            rows = [r for r in reader if None not in r and None not in r.values() and r.get("step", "").isdigit()]
            return [
                {name: int(value) if name == "step" else float(value) for name, value in row.items() if value}
                for row in rows
            ]
        except (ValueError, csv.Error) as error:  # a field of over 128 KiB, among others
            raise ValueError(
                f"{path} is damaged: {error}. Mend it, or move it away: training does not need it, and its figures are "
                "then left out"
            ) from error


def newest_value(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The last value of a column of such rows; None if it has none."""
    return next((row[name] for row in reversed(rows) if name in row), None)
