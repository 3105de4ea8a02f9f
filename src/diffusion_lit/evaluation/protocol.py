"""All that somebody needs to know to have the same figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_lit.environment import versions
from diffusion_lit.evaluation.chosen_metrics import Extractors
from diffusion_lit.evaluation.image_set import StoredImages
from diffusion_lit.metrics import Metric

__all__ = ["protocol_of"]


def protocol_of(
    cfg: DictConfig,
    results: Sequence[Mapping[str, Any]],
    real: StoredImages | None,
    training: StoredImages | None,
    metrics: Mapping[str, Metric],
    extractors: Extractors,
) -> dict[str, Any]:
    """Plain values; of several results, what they share."""
    generated = [result["generated"] for result in results]
    shared = {key: value for key, value in generated[0].items() if all(one[key] == value for one in generated)}
    return {
        "num_generated": results[0]["count"],
        "real": None if real is None else real.protocol,
        "training": None if training is None else training.protocol,
        "extractors": {name: extractor.protocol() for name, extractor in extractors.items()},
        "metrics": settings_of_metrics(cfg, metrics),
        "generated": shared,
        "versions": versions(("torch", "torchvision", "numpy", "pillow")),
    }


def settings_of_metrics(cfg: DictConfig, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What the metrics were asked for, and their facts, without extractors, which are stated apart."""

    def without(node: dict[str, Any]) -> dict[str, Any]:
        inner = {key: without(value) if isinstance(value, dict) else value for key, value in node.items()}
        return {key: value for key, value in inner.items() if key != "extractor"}

    container = OmegaConf.to_container(cfg.metrics, resolve=True)
    assert isinstance(container, dict)
    settings = without({str(name): node for name, node in container.items() if node is not None})
    return {name: {**node, **(metrics[name].facts() if name in metrics else {})} for name, node in settings.items()}
