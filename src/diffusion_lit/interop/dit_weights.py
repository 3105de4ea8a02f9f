"""What the settings and weights of the public DiT and of diffusers' have in common."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_lit.position import sin_cos_positions
from diffusion_lit.resolution import height_and_width

__all__ = [
    "SETTINGS",
    "TIME_WEIGHT",
    "check_label_rows",
    "check_names",
    "check_positions",
    "layer_names",
    "swap_sines_and_cosines",
    "whole_number",
]

SETTINGS: dict[str, Any] = {
    "_target_": "diffusion_lit.model.DiT",
    "patch_size": 2,
    "channels": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "num_classes": None,
    "learn_variance": False,
    "augmentation_dim": 0,
    "time_scale": 1.0,
    "frequency_shift": 0.0,
    "mlp_norm_eps": 1e-6,
}
"""Our network's, where they do not say."""
TIME_WEIGHT = "time.layers.0.weight"
POSITION_TOLERANCE = 1e-3
"""Their average of the weights includes the positions, and rounds them at each step."""


def swap_sines_and_cosines(weight: Tensor) -> Tensor:
    """The time's first layer, [D, sines and cosines], for the other order of the two halves; its own inverse."""
    return weight.roll(weight.shape[1] // 2, dims=1)


def layer_names(table: Mapping[str, str], depth: int) -> Iterator[tuple[str, str]]:
    """Each weight's name in our network of `depth` blocks, and in theirs; all layers but the labels' have a bias."""
    for ours, theirs in table.items():
        for part in ("weight",) if ours == "label" else ("weight", "bias"):
            for i in range(depth) if "*" in ours else range(1):
                yield f"{ours.replace('*', str(i))}.{part}", f"{theirs.replace('*', str(i))}.{part}"


def check_names(state: Mapping[str, Tensor], expected: Iterable[str], extra: Iterable[str] = ()) -> None:
    """Raise a ValueError unless `state` has the weights `expected`, perhaps those of `extra`, and no others."""
    expected = set(expected)
    missing, unknown = sorted(expected - state.keys()), sorted(state.keys() - expected - set(extra))
    if missing or unknown:
        parts = [f"{len(missing)} are missing, such as {missing[0]}"] if missing else []
        parts += [f"{len(unknown)} are not among them, such as {unknown[0]}"] if unknown else []
        raise ValueError(f"these are not the weights of the DiT that the settings describe: {'; '.join(parts)}")


def check_positions(name: str, stored: Tensor, settings: Mapping[str, Any]) -> None:
    """Raise a ValueError unless positions that came with the weights, [1, N, D], are those that ours computes."""
    height, width = (side // settings["patch_size"] for side in height_and_width(settings["resolution"]))
    computed = sin_cos_positions(height, width, settings["channels"])[None]
    if stored.shape != computed.shape:
        raise ValueError(
            f"{name} has the shape {tuple(stored.shape)}, and {tuple(computed.shape)} belongs to a resolution of "
            f"{settings['resolution']} with patches of {settings['patch_size']} and {settings['channels']} channels"
        )
    if not torch.allclose(stored.float().cpu(), computed, rtol=0, atol=POSITION_TOLERANCE):
        raise ValueError(f"{name} is not the fixed sines and cosines of DiT: learned positions are not known here")


def check_label_rows(weight: Tensor, num_classes: int) -> None:
    """Raise a ValueError unless the labels' table, [rows, D], has a row for each class and one for hidden ones."""
    if len(weight) != num_classes + 1:
        raise ValueError(
            f"the table of labels has {len(weight)} rows, and num_classes={num_classes} needs {num_classes + 1}: one "
            "more, for hidden labels. A DiT trained with class_dropout_prob=0 has none and cannot be taken"
        )


def whole_number(name: str, value: object) -> int:
    """`value`, a number or text; a ValueError with its name unless it is a whole number of at least 1."""
    if not str(value).isdecimal() or int(str(value)) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(str(value))
