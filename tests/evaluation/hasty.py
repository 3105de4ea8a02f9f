"""A run that is trained in a moment, and what evaluates it in this process, much sooner than a command would."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.command_line.shell import read_arguments
from diffusion_lit.evaluating import evaluate
from diffusion_lit.evaluation import feature_folder
from tests.launch import train_in

NUM = 60
PIECE = 8
SEEN = ("feature=pixels", "device=cpu")
FEW = ("metrics.kid.subset_size=20", "metrics.kid.num_subsets=10")
DRAWN = ("sampler.num_steps=2", f"num_samples={NUM}")
PLAIN = (*SEEN, *FEW, *DRAWN)
"""FID, KID, precision and recall of few images."""


def train_hastily(factory: pytest.TempPathFactory) -> Path:
    """A class-conditional model in a folder whose name shells and Hydra have to be told about; one for all modules."""
    folder = factory.getbasetemp() / "a run, lr=0.05"
    if not (folder / "checkpoints" / "last.ckpt").exists():
        train_in(folder, "trainer.max_steps=2", "optimizer.lr=0.05", "callback.fid=null", "callback.sample_grid=null")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    """Pieces of `PIECE` images, in a module that imports this; of processes that are copies of this one, too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(feature_folder, "PIECE", PIECE)
        yield


@cache
def chosen(*groups: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("evaluate", list(groups), return_hydra_config=True)


@contextmanager
def configured(overrides: list[str]) -> Iterator[DictConfig]:
    """conf/evaluate.yaml with overrides, as the command has it while it runs."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    groups = [o for o in parsed if (CONFIG_FOLDER / o.key_or_group).is_dir()]
    cfg = deepcopy(chosen(*(o.input_line for o in groups if o.input_line is not None)))
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o not in groups], cfg)
    with open_dict(cfg):
        cfg.hydra.overrides.task = overrides
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    try:
        yield cfg
    finally:
        HydraConfig.instance().cfg = None


def evaluated(folder: Path, *args: str) -> Path:
    """Do what the command does, by default in `folder` with a cache there; where the report is."""
    overrides = read_arguments([f"out={folder / 'out'}", f"cache={folder / 'cache'}", *args])
    with configured(overrides) as cfg:
        evaluate(cfg, overrides)
        return Path(cfg.out)


def damaged(run: Path, path: Path) -> None:
    """A checkpoint in which the averaged weights are not numbers."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for weights in checkpoint["ema"].values():
        weights.fill_(torch.nan)
    torch.save(checkpoint, path)


def result(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return record


def figures(out: Path) -> dict[str, float]:
    """The figures of a single result."""
    [one] = result(out)["results"]
    return {name: figure["value"] for name, figure in one["figures"].items()}


def pieces(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("[0-9]*.npz"))}
