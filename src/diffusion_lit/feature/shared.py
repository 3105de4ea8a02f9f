"""Extractors that several parts of a configuration name, and that are built once."""

import json
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.feature.base import FeatureExtractor

__all__ = ["instantiate_sharing"]


def instantiate_sharing(node: DictConfig, built: dict[str, FeatureExtractor]) -> Any:
    """The object of a configuration, in which every `extractor` of equal configuration is one object.

    Args:
        node: the configuration.
        built: the extractors that there are, by their configuration; new ones are added.
    """
    return instantiate(node, **extractors_of(node, built))


def extractors_of(node: DictConfig, built: dict[str, FeatureExtractor]) -> dict[str, Any]:
    """The extractors in a configuration, at their places."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if not isinstance(value, DictConfig):
            continue
        if key != "extractor":
            if inner := extractors_of(value, built):
                found[str(key)] = inner
            continue
        address = json.dumps(OmegaConf.to_container(value, resolve=True), sort_keys=True)
        if address not in built:
            built[address] = instantiate(value).eval()
        found["extractor"] = built[address]
    return found
