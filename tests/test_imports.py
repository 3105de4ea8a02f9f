"""Imports point one way: nothing imports in a circle, and nothing imports what is built on it."""

import ast
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import diffusion_lit

PACKAGE = Path(diffusion_lit.__file__).parent
COMMANDS = ("train", "sample", "evaluate", "export", "prepare", "inspect", "plot", "report")
LAYERS = (
    ("__main__",),
    COMMANDS,
    ("library",),
    ("training", "exporting", "evaluating", "sampling"),
    ("model_card", "trainer"),
    ("page",),
    ("run",),
    ("callback",),
    ("module",),
    ("trained_model", "evaluation"),
    ("drawing", "drawn", "logger", "provenance"),
    ("figure", "contact_sheet", "generate", "inversion", "likelihood", "loss"),
    ("loading",),
    ("agreement", "bound", "checkpoint", "conditioning", "deployment", "guidance", "precision", "sampler", "weighting"),
    ("data", "denoiser"),
    ("metrics", "optimizer", "preparation", "space"),
    ("average", "call", "feature", "interop", "prepared"),
    ("autoencoder",),
    ("terminal", "trust"),
    ("command_line", "density", "execution", "noise_level", "ode", "picture", "source"),
    ("files", "labels", "model", "schedule"),
    ("accumulation", "augmentation", "budget", "condition", "counted", "derived", "distributed", "environment"),
    ("extra", "fixed_precision", "lr_schedule", "out_of_memory", "parameterization", "position", "random"),
    ("resolution", "step_timer"),
)
"""Files and folders of the package from top to bottom: each may import itself and whatever is further down."""
WITHOUT_LIGHTNING = ("source", "prepared", "schedule", "sampler")
DO_WITHOUT_LIGHTNING = ("torch", "numpy", "PIL", "tests")
"""Other libraries that are imported there, and do not import it in turn; and what runs this test."""


def modules() -> dict[str, Path]:
    """The files of the package by their names in it; a folder's `__init__` has the folder's name."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items() if name != "__init__"}


def imported(path: Path) -> Iterator[str]:
    """The full name of everything that a file imports, wherever in it and for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: relative imports are not followed"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def graph() -> dict[str, set[str]]:
    """The modules that each module imports, with the folders that those are in."""
    found: dict[str, set[str]] = {}
    for name, path in (known := modules()).items():
        targets = set()
        for full in imported(path):
            parts = full.split(".")[1:] if full.startswith("diffusion_lit.") else []
            within = [".".join(parts[: i + 1]) for i in range(len(parts))]
            own = name.split(".")[0]  # a folder's files import each other past its `__init__`
            targets |= {part for part in within if part in known and (part == within[-1] or part != own)}
            if parts and within[-1] not in known:  # a name in a module
                targets |= {part for part in within[-2:-1] if part in known}
        found[name] = targets - {name}
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_nothing_imports_in_a_circle() -> None:
    edges = graph()
    assert len(edges) > 100 and "denoiser" in edges["sampler.base"] and "schedule" in edges["denoiser"]
    assert circle(edges) == []
    rooms: dict[str, set[str]] = {}
    for name, targets in edges.items():
        room = name.split(".")[0]
        rooms.setdefault(room, set()).update({target.split(".")[0] for target in targets} - {room})
    assert circle(rooms) == []


def test_imports_point_down() -> None:
    layer = {name: depth for depth, names in enumerate(LAYERS) for name in names}
    assert layer.keys() >= {name.split(".")[0] for name in modules()}, "each file and folder has its place in LAYERS"
    upward = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        for own, other in [(name.split(".")[0], target.split(".")[0])]
        if own != other and layer[own] >= layer[other]
    ]
    assert upward == []


def test_what_reads_images_and_what_draws_them_does_without_lightning() -> None:
    names = [name for name in modules() if name.split(".")[0] in WITHOUT_LIGHTNING]
    assert len(names) > 30
    assert not [name for name in names for full in imported(modules()[name]) if "lightning" in full.split(".")[0]]
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:  # in a copy of this process, which takes seconds less than a new one to have torch
        try:
            said = repr(lightning_after(names))
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as child:
        assert child.read() == "[]"
    os.waitpid(pid, 0)


def lightning_after(names: list[str]) -> list[str]:
    """What there is of Lightning when all is imported anew, but for what is known to do without it."""
    known = {*sys.stdlib_module_names, *sys.builtin_module_names, *DO_WITHOUT_LIGHTNING}
    for name in list(sys.modules):
        if name.split(".")[0] not in known:
            del sys.modules[name]
    for name in names:
        importlib.import_module(f"diffusion_lit.{name}")
    return [name for name in sys.modules if "lightning" in name.split(".")[0]]
