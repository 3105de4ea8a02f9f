"""conf/metrics: each file can be chosen, several together, and builds a metric with the published defaults."""

import inspect
from dataclasses import fields
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion_lit import metrics
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.evaluation import BitsPerDim, Bound
from diffusion_lit.evaluation.bits_per_dim import Likelihood
from diffusion_lit.metrics import ByClass, FrechetDistance, KernelDistance, Metric
from tests.metrics.features import Given

NAMES = sorted(path.stem for path in (CONFIG_FOLDER / "metrics").glob("*.yaml"))
GIVEN = {"_target_": f"{Given.__module__}.Given"}


def chosen(*overrides: str) -> DictConfig:
    """The metrics that a command line chooses, with features that are given in place of each extractor."""
    with initialize_config_dir(str(CONFIG_FOLDER), version_base=None):
        cfg = compose("train", list(overrides))
    for metric in cfg.metrics.values():
        inner = metric.get("metric", metric)
        if "extractor" in inner:  # a likelihood has none
            assert "_target_" in inner.extractor
            inner.extractor = GIVEN
    return cfg.metrics


@cache
def every() -> DictConfig:
    """All of them, each under its own name."""
    return chosen(f"+metrics=[{','.join(NAMES)}]")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_builds_its_metric(name: str) -> None:
    cfg = every()[name]
    metric = instantiate(cfg)
    assert every().keys() == set(NAMES) and (isinstance(metric, Likelihood) or isinstance(metric.extractor, Given))
    assert set(OmegaConf.to_container(cfg)) == {"_target_", *(field.name for field in fields(metric))}
    default = {
        field.name: field.default for field in fields(metric) if field.name not in ("extractor", "metric", "name")
    }
    assert {setting: getattr(metric, setting) for setting in default} == default
    if "name" in cfg:
        assert cfg.name == name


def test_several_are_chosen_together() -> None:
    fid, kid = (instantiate(cfg) for cfg in chosen("+metrics=[fid,kid]", "metrics.kid.subset_size=50").values())
    assert type(fid) is FrechetDistance and fid.name == "fid"
    assert type(kid) is KernelDistance and kid.subset_size == 50


def test_the_metric_within_another_is_built_too() -> None:
    [cfg] = chosen("+metrics=fid_by_class").values()
    assert type(instantiate(cfg).metric) is FrechetDistance


def test_every_metric_can_be_chosen() -> None:
    classes = {x for x in vars(metrics).values() if inspect.isclass(x) and issubclass(x, Metric) and x is not Metric}
    built = {type(instantiate(cfg)) for cfg in every().values()}
    assert built == classes | {BitsPerDim, Bound} and ByClass in classes
