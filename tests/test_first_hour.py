"""docs/start.md and docs/first_hour.md from top to bottom, as somebody new types them, with short settings."""

import shlex
from collections.abc import Iterator, Mapping
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
}
"""Settings that are added to what is shown."""
CLASSES = ("Kreise", "Sterne", "Würfel")


def typed(document: str, places: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The commands of a document, with the reader's own files in the places of what stands for them."""
    for line in command_lines(document):
        command = COMMAND.search(line)
        if command is None or not command[2]:
            continue
        name, arguments = command[1], shlex.split(command[2])
        if arguments[0] == "compare":
            yield name, ["compare", *(str(places[argument.partition("/")[0]]) for argument in arguments[1:])]
            continue
        pairs = [argument.partition("=") for argument in arguments]
        given = [f"{key}{mark}{places.get(value, value)}" for key, mark, value in pairs]
        groups = {key for key, _, _ in pairs} & {"metrics", "feature"}  # which are chosen once
        short = [] if name == "train" and "resume" in dict(p[::2] for p in pairs) else SHORT.get(name, ())
        yield name, [*given, *(o for o in short if o.partition("=")[0].partition(".")[0] not in groups)]


@pytest.mark.slow
@pytest.mark.parametrize("document", ["docs/start.md", "docs/first_hour.md"])
def test_every_command_of_the_first_hour_works(document: str, tmp_path: Path) -> None:
    folder = tmp_path / "my images = 1"
    for i in range(120):
        path = folder / CLASSES[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 25, 3), dtype=np.uint8)).save(path)
    run = tmp_path / "outputs" / "first run"
    places = {"RUN": run, "FOLDER": folder, "DIR": tmp_path / "prepared = 1"}
    results = [tmp_path / name / "evaluation.json" for name in ("A", "B")]
    count, trained, evaluated = 0, False, 0
    for name, arguments in typed(document, places | {"A": results[0], "B": results[1]}):
        own, code = [], 0
        if name == "train" and any(argument == f"resume={run}" for argument in arguments):
            own = ["trainer.max_steps=6"]
        elif name == "train" and not trained and (document == "docs/start.md" or f"data.root={folder}" in arguments):
            own, trained = ["hydra.run.dir=outputs/first run"], True
        elif name == "evaluate" and arguments[0] == "compare":
            code = 1  # of other features
        elif name == "evaluate" and evaluated < len(results):
            own, evaluated = [f"out={results[evaluated].parent}"], evaluated + 1
        done = run_forked(name, *arguments, *own, cwd=tmp_path)
        assert done.returncode == code, f"{name} {arguments}:\n{done.stderr}"
        count += 1
    assert count > 8
