"""Evaluations for a page: tables, charts, the protocol, the closest pairs."""

from collections.abc import Sequence
from typing import Any

from diffusion_lit.evaluation.report import cell_name, direction, listed, number
from diffusion_lit.page.commands import measured_again, own_remark
from diffusion_lit.page.curves import evaluation_charts
from diffusion_lit.page.picture import LARGEST, as_data
from diffusion_lit.run.past import Evaluation, PastRun

__all__ = ["evaluations_of"]

MOST_PAIRS = 6
"""Pictures of closest pairs that are shown of an evaluation."""


def evaluations_of(runs: Sequence[PastRun], left_out: list[str]) -> list[dict[str, Any]]:
    """Those that are as `evaluate` writes them; others are said."""
    found = []
    for run in runs:
        for evaluation in run.evaluations:
            try:
                found.append(evaluation_of(evaluation, run.name, left_out))
            except (KeyError, TypeError, AttributeError, ValueError):
                left_out.append(f"{run.name}: {evaluation.path} is not as diffusion_lit.evaluate writes it")
    return found


def evaluation_of(evaluation: Evaluation, name: str, left_out: list[str]) -> dict[str, Any]:
    """A result's tables, charts and protocol.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: if the file is not as `evaluate` writes it.
    """
    record, results = evaluation.record, evaluation.record["results"]
    floor, names = record.get("floor") or {}, list(results[0]["figures"])
    if len(results) == 1:
        head = ["figure", "value", "noise floor", "", "features"]
        table = [
            [
                key,
                number(figure),
                number(floor[key]) if key in floor else "",
                direction(figure.get("better")),
                str(figure.get("feature") or ""),
            ]
            for key, figure in results[0]["figures"].items()
        ]
    else:
        head = ["images", "calls", *names]
        table = [
            [cell_name(one["cell"]), str(one["generated"].get("calls_per_image", ""))]
            + [number(one["figures"][key]) if key in one["figures"] else "" for key in names]
            for one in results
        ]
        table += [["real images", "", *(number(floor[key]) if key in floor else "" for key in names)]] * bool(floor)
    pairs = []
    for path in evaluation.pairs[:MOST_PAIRS]:
        try:
            pairs.append(as_data(path, 2 * LARGEST))
        except ValueError as error:
            left_out.append(f"{name}: {error}")
    notes = [str(note) for note in record.get("notes") or []]
    if len(evaluation.pairs) > MOST_PAIRS:
        notes.append(f"{len(evaluation.pairs)} pictures of closest pairs, of which {MOST_PAIRS} are shown")
    images = f", {count} images" if (count := results[0].get("count", "?")) else ""  # none are drawn for a likelihood
    return {
        "name": f"{name}: {evaluation.path.parent.name}{images}",
        "head": head,
        "table": table,
        "charts": evaluation_charts(evaluation),
        "notes": notes,
        "pairs": pairs,
        "protocol": "\n".join(listed(record["protocol"])),
        "command": (again := measured_again(evaluation)),
        "remark": own_remark(again or ""),
    }
