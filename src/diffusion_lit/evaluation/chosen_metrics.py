"""The metrics that are asked for, and what each compares images by."""

import json
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.metrics import Metric

__all__ = ["Extractors", "build_metrics"]

Extractors = dict[str, FeatureExtractor]
"""By the names under which figures state them."""


def build_metrics(cfg: DictConfig) -> tuple[dict[str, Any], Extractors]:
    """The metrics of `cfg.metrics` by name, and their extractors, of which equal ones are one.

    Raises:
        ValueError: if there are none, or a setting is wrong.
        FileNotFoundError: if weights are missing.
    """
    nodes = OmegaConf.to_container(cfg.metrics, resolve=True) if cfg.get("metrics") else {}
    assert isinstance(nodes, dict)
    if not (nodes := {str(name): node for name, node in nodes.items() if node is not None}):
        raise ValueError("metrics= names none; choose some, such as metrics=[fid,kid]")
    built: dict[str, FeatureExtractor] = {}
    metrics = {name: build(node, built) for name, node in nodes.items()}
    extractors: Extractors = {}
    for extractor in built.values():
        name, count = extractor.name, sum(own.split("#")[0] == extractor.name for own in extractors)
        extractors[f"{name}#{count + 1}" if count else name] = extractor
    for metric in metrics.values():
        if isinstance(metric, Metric):
            metric.check()
    return metrics, extractors


def build(node: Mapping[str, Any], built: dict[str, FeatureExtractor]) -> Any:
    """The object of a configuration; extractors of equal configuration are one object, in `built`."""
    values = {
        key: build(value, built) if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    cls = get_class(node["_target_"])
    if not issubclass(cls, FeatureExtractor):
        return cls(**values)
    address = json.dumps(node, sort_keys=True)
    if address not in built:
        built[address] = cls(**values).eval()
    return built[address]
