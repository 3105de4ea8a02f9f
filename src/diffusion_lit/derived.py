"""Parts of a run's settings that only repeat others: a record of the run has each setting once."""

from collections.abc import Mapping
from typing import Any

__all__ = ["DERIVED", "denoiser_settings", "distinct", "leaves", "without_repeats"]

REPEATS = {
    "module": ("denoiser", "loss", "augmentation", "optimizer", "lr_schedule", "label_dropout", "seed", "execution"),
    "denoiser": ("network", "schedule", "parameterization", "space"),
}
"""What a part has from elsewhere in the settings; the outer part first."""
HOMES = {"network": "model"}
"""Where it has it from, if that has another name."""
DERIVED = (*REPEATS, "hydra")
"""Parts of a configuration that only repeat others."""


def without_repeats(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved settings, and of the derived parts only what is nowhere else in them."""
    kept = dict(settings)
    for part, names in REPEATS.items():
        if isinstance(node := kept.get(part), Mapping):
            repeated = [name for name in names if name in node and node[name] == kept.get(HOMES.get(name, name))]
            kept[part] = {name: value for name, value in node.items() if name not in repeated}
    return kept


def denoiser_settings(settings: Mapping[str, Any]) -> Any:
    """The denoiser's part in full, of a run's recorded settings with or without repeats."""
    node = settings.get("denoiser")
    if not isinstance(node, Mapping):
        return node
    homes = {name: HOMES.get(name, name) for name in REPEATS["denoiser"]}
    return {**{name: settings[home] for name, home in homes.items() if home in settings}, **node}


def distinct(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a table of runs: an object within a group that equals the group of that kind is left out.

    So `callback.fid.sampler` is there where it is another than `sampler`, and then stands out.
    """
    groups = [node for node in settings.values() if is_object(node)]

    def visit(node: Mapping[str, Any], inside: bool) -> dict[str, Any]:
        kept = {name: part for name, part in node.items() if not (inside and is_object(part) and part in groups)}
        return {name: visit(part, True) if isinstance(part, Mapping) else part for name, part in kept.items()}

    return visit(settings, False)


def is_object(node: object) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every value by its dotted key; a list is one value."""
    values: dict[str, Any] = {}

    def visit(key: str, value: Any) -> None:
        if isinstance(value, Mapping) and (value or not key):
            for name, inner in value.items():
                visit(f"{key}.{name}" if key else str(name), inner)
        else:
            values[key] = value

    visit("", config)
    return values
