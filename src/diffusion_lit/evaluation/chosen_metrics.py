"""The metrics that are asked for, and what each compares images by."""

from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from diffusion_lit.feature import FeatureExtractor
from diffusion_lit.feature.shared import instantiate_sharing
from diffusion_lit.files import behind

__all__ = ["Extractors", "build_metrics"]

Extractors = dict[str, FeatureExtractor]
"""By the names under which figures state them."""


def build_metrics(cfg: DictConfig) -> tuple[dict[str, Any], Extractors]:
    """The metrics of `cfg.metrics` by name, and their extractors, of which equal ones are one.

    Raises:
        ValueError: if there are none, or a setting is wrong.
        FileNotFoundError: if weights are missing.
    """
    if not (nodes := {str(name): node for name, node in (cfg.get("metrics") or {}).items() if node is not None}):
        raise ValueError("metrics= names none; choose some, such as metrics=[fid,kid]")
    built: dict[str, FeatureExtractor] = {}
    try:
        metrics = {name: instantiate_sharing(node, built) for name, node in nodes.items()}
    except InstantiationException as error:
        raise behind(error, lambda hidden: isinstance(hidden, ValueError | OSError)) or error from None
    extractors: Extractors = {}
    for extractor in built.values():
        name, count = extractor.name, sum(own.split("#")[0] == extractor.name for own in extractors)
        extractors[f"{name}#{count + 1}" if count else name] = extractor
    return metrics, extractors
