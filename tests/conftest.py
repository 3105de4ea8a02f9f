"""What holds for all tests, and for the processes that they start."""

import gc
import logging
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

gc.disable()  # until everything is imported; that stays, and looking through it would take half a second each time
os.environ["OMP_NUM_THREADS"] = "1"
# This checkout's source, whatever is installed; and the tests, of which loading processes unpickle classes.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
os.environ["WANDB__SAVE_REQUIREMENTS"] = "false"  # the list of all installed packages, a third of a second for each run


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) is not None and not hasattr(config, "workerinput"):
        return  # the process that only hands out tests would import for ten seconds what it does not use
    import hypothesis
    import torch
    from lightning.fabric.utilities import registry

    from diffusion_lit.data import DigitsData
    from diffusion_lit.feature import random_vgg
    from tests import hydra_shortcuts
    from tests.feature.narrow_vgg import narrow_vgg16
    from tests.launch import few

    os.fsync = lambda descriptor: None  # type: ignore[assignment] # no machine stops here; waiting for the disk takes a tenth
    torch.set_num_threads(1)  # on images this small, threads wait for each other, and the tests run side by side
    # Seconds, instead of 5, that a loading process which raised an error is waited for: it looks rarely whether to end.
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 1.0  # type: ignore[attr-defined]
    hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)  # the same cases on any machine
    hypothesis.settings.load_profile("suite")
    hydra_shortcuts.install()
    DigitsData.load = few  # type: ignore[method-assign, assignment]
    random_vgg.seeded_vgg16 = narrow_vgg16
    registry.entry_points = cache(registry.entry_points)  # Lightning looks through all packages for each trainer


@pytest.fixture(autouse=True)
def no_rank() -> Iterator[None]:
    """A test that leaves Lightning's variables behind makes a rank of all that follow: they would wait for others."""
    yield
    assert "LOCAL_RANK" not in os.environ


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Hydra's own handlers write to an output that is closed after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests in each, in a random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("--shuffle")) is not None:
        shuffle = random.Random(seed).shuffle
        files: dict[Path, list[pytest.Item]] = {}
        for item in items:
            files.setdefault(item.path, []).append(item)
        groups = list(files.values())
        shuffle(groups)
        for group in groups:
            shuffle(group)
        items[:] = [item for group in groups for item in group]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 10, 5)  # as it is set at first, a twentieth of the time goes into looking for garbage
    gc.enable()
