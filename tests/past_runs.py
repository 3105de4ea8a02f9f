"""Folders of runs as training and evaluation leave them, written by hand."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["EVALUATION", "TABLE", "write_run"]

TABLE = [
    {"step": 0, "images_seen": 0, "size/batch": 64, "size/train_images": 1000},
    *(
        {
            "step": step,
            "images_seen": 64 * step,
            "epoch": 0.064 * step,
            "train/loss": 10 / step,
            "throughput/step_seconds": 6.0,
            **(
                {"val/loss": 11 / step, "val/loss_raw": 12 / step, "fid/pixels_500": 100 / step}
                if step % 20 == 0
                else {}
            ),
        }
        for step in range(10, 101, 10)
    ),
]
EVALUATION: dict[str, Any] = {
    "command": "python -m diffusion_lit.evaluate ckpt=RUN",
    "protocol": {"real": {"count": 9}, "training": None, "num_generated": 100, "extractors": {}, "metrics": {}},
    "results": [
        {
            "cell": {"guidance": scale},
            "generated": {"calls_per_image": 4},
            "count": 100,
            "figures": {"fid": {"value": 2.0 + scale, "better": "lower", "metric": "fid", "feature": "pixels"}},
        }
        for scale in (1.0, 2.0)
    ],
    "floor": {"fid": {"value": 0.5, "count": 50}},
    "notes": [],
}


def write_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]] = TABLE,
    settings: str = "schedule:\n  _target_: diffusion_lit.schedule.CosineSchedule\n  s: 0.008\n",
    record: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Path:
    """A run of 100 steps with three pictures; `record` and `evaluation` change what is in its files."""
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(settings)
    known: dict[str, Any] = {"parameters": 1234, "command": ["python", "-m", "diffusion_lit.train"]}
    known |= {"started_in": str(folder.parent), "machine": {"cpu": "ABC", "gpus": []}, "finished": 100}
    (folder / "run.json").write_text(json.dumps(known | dict(record or {})))
    with (folder / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for step in (20, 60, 100):
        Image.new("L", (60, 40), 2 * step).save(folder / "samples" / f"step_{step:07}.png")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(EVALUATION | dict(evaluation or {})))
    Image.new("L", (80, 20), 99).save(folder / "evaluation" / "closest_pairs.png")
    return folder
