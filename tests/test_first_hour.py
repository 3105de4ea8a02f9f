"""docs/start.md from top to bottom, as somebody new types it, with short settings."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents import COMMAND, command_lines
from tests.launch import TINY, run_forked

SHORT = {
    "train": (*(o for o in TINY if not o.startswith("sampler.")), "trainer.max_minutes=null", "trainer.max_steps=4"),
    "sample": ("num_samples=4", "sampler.num_steps=2"),
    "evaluate": (
        "num_samples=40",
        "metrics=[fid]",
        "steps=2",
        "cache=cache",
        "feature.cache=cache",
        "feature.num_images=2000",
    ),
    "inspect": (),
}


def typed(run: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    for line in command_lines("docs/start.md"):
        if command := COMMAND.search(line):
            name, arguments = command[1], shlex.split(command[2])
            places = {"RUN": str(run), "FOLDER": str(folder)}
            pairs = [argument.partition("=") for argument in arguments]
            yield name, [f"{key}{mark}{places.get(value, value)}" for key, mark, value in pairs]


@pytest.mark.slow
def test_every_command_of_the_first_ten_minutes_works(tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / "my images = 1" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    run = tmp_path / "outputs" / "first run"
    count = 0
    for name, arguments in typed(run, tmp_path / "my images = 1"):
        own = ["hydra.run.dir=outputs/first run"] if name == "train" and not count else []
        resumes = ["trainer.max_steps=6"] if any(a.startswith("resume=") for a in arguments) else SHORT[name]
        done = run_forked(name, *arguments, *own, *resumes, cwd=tmp_path)
        assert done.returncode == 0, f"{name} {arguments}:\n{done.stderr}"
        count += 1
    assert count > 8
