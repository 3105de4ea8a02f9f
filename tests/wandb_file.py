"""Reading what W&B has written of an offline run: `offline-run-*/run-ID.wandb`, for which it ships no reader.

The file has LevelDB's log format: blocks of 32 KiB with records in pieces, each record a Protocol Buffer. Its first 7
bytes name W&B's version of it.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["OfflineRun", "read_offline_run"]

BLOCK = 32 * 1024
FILE_HEADER = 7
PIECE_HEADER = 7
"""Checksum (4 bytes), length (2), kind (1)."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
PATIENCE = 60.0


@dataclass
class OfflineRun:
    """What a run says of itself."""

    run: Any = None
    """W&B's own record of its start: id, name, group, tags, notes."""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    """What `define_metric` has said, by the metric's name, or by a pattern of names."""
    artifacts: list[Any] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def column(self, name: str) -> dict[int, Any]:
        """The values of a figure by step."""
        return {row["trainer/global_step"]: row[name] for row in self.history if name in row}


def records(file: Path) -> Iterator[bytes]:
    """The records of a file; a last one that was cut is left out."""
    data, at, pieces = file.read_bytes(), FILE_HEADER, b""
    assert data[:4] in (b":W&B", b""), file
    while at + PIECE_HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < PIECE_HEADER:  # too few bytes for a header are padding
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        at += PIECE_HEADER
        if kind in (FULL, FIRST):
            pieces = b""
        pieces += data[at : at + length]
        at += length
        if kind in (FULL, LAST):
            yield pieces


def read_offline_run(save_dir: Path) -> OfflineRun:
    """The one offline run below `save_dir`/wandb, once it is whole: W&B's own process writes it, and writes late."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = (save_dir / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + PATIENCE
    while True:
        read = [Record.FromString(data) for data in records(file)]
        if any(record.WhichOneof("record_type") == "exit" for record in read):
            break
        assert time.monotonic() < deadline, f"{file} has no end: {len(read)} records"
        time.sleep(0.05)
    found = OfflineRun()
    for record in read:
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                put(found.config, record.run.config.update)
            case "config":
                put(found.config, record.config.update)
            case "history":
                found.history.append({name_of(item): json.loads(item.value_json) for item in record.history.item})
            case "summary":
                put(found.summary, record.summary.update)
            case "metric":
                found.metrics[record.metric.name or record.metric.glob_name] = record.metric
            case "artifact":
                found.artifacts.append(record.artifact)
            case "files":
                found.files += [file.path for file in record.files.files]
    return found


def name_of(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def put(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[name_of(item)] = json.loads(item.value_json)
