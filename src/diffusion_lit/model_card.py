"""What is said of an exported model: README.md, written from what its checkpoint and its evaluation recorded."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_lit import __version__
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.deployment.places import short, without_places
from diffusion_lit.deployment.usage import usage
from diffusion_lit.evaluation.comparison import result_file
from diffusion_lit.evaluation.report import cell_name, direction, listed, number
from diffusion_lit.interop.foreign import Foreign
from diffusion_lit.loading import content_of
from diffusion_lit.page.facts import class_of
from diffusion_lit.run.past import Evaluation, read_evaluation, read_run

__all__ = ["Card", "check_license", "find_evaluation", "model_card"]

TRAINED = {
    "data": "Trained on",
    "augmentation": "Augmentation",
    "loss": "Loss",
    "density": "Training times",
    "weighting": "Weighting",
    "optimizer": "Optimizer",
    "label_dropout": "Share of hidden classes in training",
}
MOST_CLASSES = 200
"""Classes that are listed."""


@dataclass(frozen=True)
class Card:
    """What a card is written from."""

    model: Foreign
    denoiser: Denoiser
    config: Mapping[str, Any]
    """The run's settings."""
    format: str
    license: str | None
    evaluation: Evaluation | None
    has_pipeline: bool
    """Whether a pipeline of diffusers draws its images."""
    place: str
    """The exported folder, as one who is in it names it, or its name on the Hub."""
    on_hub: bool
    reading: Mapping[str, str | list[str]]
    clip: float | None
    """Both as `usage` takes them."""


def check_license(name: str | None) -> None:
    """Raise a ValueError unless a license is an identifier, as the Hub knows them, or None."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", str(name)):
        raise ValueError(f"license={name} is not an identifier: give one such as apache-2.0, mit, cc-by-4.0 or other")


def find_evaluation(ckpt: str, file: Path, weights: str, given: str | None) -> Evaluation | None:
    """The evaluation that a card states: the newest of the run of `file`, of these very weights; or the given one.

    Args:
        ckpt: as it was typed.
        file: its checkpoint.
        weights: which of its weights are exported.
        given: an evaluation.json or its folder; None looks beside the run.

    Raises:
        FileNotFoundError: if the given one does not exist.
        ValueError: if it is not an evaluation.json, or is of another model.
    """
    same = {"ckpt": content_of(ckpt), "weights": weights}

    def is_of_this(evaluation: Evaluation) -> bool:
        generated = evaluation.record["protocol"].get("generated")
        return isinstance(generated, Mapping) and all(generated.get(key) == value for key, value in same.items())

    if given is not None:
        found = read_evaluation(result_file(Path(given).expanduser()))
        if not is_of_this(found):
            raise ValueError(
                f"evaluation={given} is not of these weights: it measured another checkpoint, an earlier state of it, "
                f"or other weights than {weights}. Measure this one: python -m diffusion_lit.evaluate, or leave it out"
            )
        return found
    if file.parent.name != "checkpoints":
        return None
    try:
        evaluations = read_run(file.parents[1]).evaluations
    except FileNotFoundError:
        return None
    return max(filter(is_of_this, evaluations), key=lambda evaluation: evaluation.path.stat().st_mtime, default=None)


def model_card(card: Card) -> str:
    """README.md, with the fields that the Hugging Face Hub reads at its head."""
    return "\n".join([*head(card), *summary(card), *usage_lines(card), *training(card), *measured(card)]) + "\n"


def head(card: Card) -> Iterator[str]:
    fields = {
        "license": card.license,
        "library_name": "diffusers" if card.format == "diffusers" else "diffusion-lit",
        "pipeline_tag": "unconditional-image-generation",
    }
    yield "---"
    yield from (f"{key}: {value}" for key, value in fields.items() if value is not None)
    yield from ("tags:", "- diffusion", "- diffusion-lit", "---", "")


def summary(card: Card) -> Iterator[str]:
    denoiser, settings = card.denoiser, card.model.denoiser
    c, h, w = denoiser.image_shape
    parameters = sum(weight.numel() for weight in denoiser.network.parameters())
    kind = (
        "An unconditional" if denoiser.num_classes is None else f"A class-conditional ({denoiser.num_classes} classes)"
    )
    steps = f" after {card.model.step:,} training steps" if card.model.step else ""
    which = {None: "a single set of weights", "raw": "the raw weights"}.get(card.model.weights_name, "averaged weights")
    yield "# A diffusion model"
    yield ""
    yield f"{kind} diffusion model of {denoiser.space.name}, {c} x {h} x {w}: {parameters / 1e6:.3g} M parameters,"
    yield f"{which}{steps}. Written by [diffusion-lit](https://github.com/diffusion-lit/diffusion-lit) {__version__}."
    yield ""
    yield from ("| | |", "| --- | --- |")
    rows = {"Network": "network", "Noise schedule": "schedule", "The network predicts": "parameterization"}
    for name, key in rows.items():
        yield f"| {name} | {cell(class_of(short(settings[key])))} |"
    if card.model.class_names is not None:
        names = card.model.class_names
        counts = card.model.class_counts or [0] * len(names)
        listed_names = [
            clean(name) + (f" ({count:,})" if count else "") for name, count in zip(names, counts, strict=False)
        ]
        listed_names[MOST_CLASSES:] = [f"and {len(names) - MOST_CLASSES} more"] if len(names) > MOST_CLASSES else []
        yield f"| Classes, 0 to {len(names) - 1}, and images of each | {cell(', '.join(listed_names))} |"
    yield ""


def usage_lines(card: Card) -> Iterator[str]:
    yield from ("## How to sample", "", *(() if card.on_hub else ("In this folder:", "")))
    yield from usage(card.format, card.place, card.on_hub, card.denoiser, card.has_pipeline, card.reading, card.clip)


def training(card: Card) -> Iterator[str]:
    """How it was trained, as far as the checkpoint says."""
    known = {key: name for key, name in TRAINED.items() if card.config.get(key) is not None}
    if not known:
        return
    yield from ("## Training", "", "| | |", "| --- | --- |")
    for key, name in known.items():
        yield f"| {name} | {cell(class_of(short(card.config[key])))} |"
    if card.model.class_counts:
        yield f"| Labelled training images | {sum(card.model.class_counts):,} |"
    yield ""


def measured(card: Card) -> Iterator[str]:
    """Figures with the protocol without which they mean nothing."""
    if card.evaluation is None:
        yield "No evaluation of these weights is known."
        return
    record = card.evaluation.record
    yield from ("## Evaluation", "")
    for result in record["results"]:
        if result["cell"]:
            yield from (f"{cell(cell_name(result['cell']))}:", "")
        yield from ("| figure | value | |", "| --- | --- | --- |")
        for name, figure in result["figures"].items():
            features = f"{figure['feature']} features, " if figure.get("feature") else ""
            yield f"| {cell(name)} | {number(figure)} | {cell(features)}{direction(figure.get('better'))} |"
        yield ""
    yield from ("Protocol:", "", "```", *map(clean, listed(without_places(record["protocol"]))), "```")


def cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return clean(text).replace("|", r"\|")


def clean(text: str) -> str:
    """On one line, without characters that a terminal would obey or a page would run."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    return shown.replace("<", "&lt;")
