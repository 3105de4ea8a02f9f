"""Whether two results may be compared: whether they differ in the models alone, and not in how they were measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_lit.derived import leaves
from diffusion_lit.evaluation.report import cell_name, number
from diffusion_lit.trust.plain import plain, read_json

__all__ = ["compare_results", "read_result", "result_file"]

SUM = "_sha256"
"""At the end of a key: the checksum of the file that the key before it names, which is the same in another place."""

MEASURE = ("real", "training", "num_generated", "extractors", "metrics")
"""What of a protocol decides what a figure means, as far as the figure is of that; the rest is what is compared."""
READ = {"real": "real", "training": "training", "num_generated": "generated"}
"""Which images a part of a protocol is of, as figures name those that they read."""


def compare_results(first: Path, second: Path) -> tuple[str, bool]:
    """Both results side by side, with what differs between their protocols, and whether they may be compared.

    Args:
        first, second: files evaluation.json, or folders of one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if one is not an evaluation.json.
    """
    first, second = result_file(first), result_file(second)
    a, b = read_result(first), read_result(second)
    left, right = ({key: str(value) for key, value in leaves(r["protocol"]).items()} for r in (a, b))
    different = [key for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
    of_both = {*parts_of(a)} & {*parts_of(b)}
    read = {name for parts in (parts_of(a), parts_of(b)) for part in of_both for name in parts[part]}
    summed = {key.removesuffix(SUM) for key in left.keys() & right.keys() if key.endswith(SUM)}
    same = [group for group in READ if left.get(f"{group}.content") == right.get(f"{group}.content") is not None]
    decisive = [key for key in different if decides(key, of_both, read) and key not in summed]
    decisive = [key for key in decisive if key.partition(".")[0] not in same]  # the same images by another name
    lines = [f"A {first}", f"B {second}", "", *side_by_side(a["results"], b["results"])]
    if not of_both:
        lines += ["", "They may NOT be compared: they have no figure in common that is of the same features."]
    elif decisive:
        lines += ["", "They may NOT be compared, since they were measured differently:"]
        lines += [f"  {both(key, left, right)}" for key in decisive]
    else:
        lines += ["", "They may be compared: measured alike."]
    if others := [key for key in different if key not in decisive]:
        lines += ["What differs:" if not of_both else "What else differs, and may be what is compared:"]
        lines += [f"  {both(key, left, right)}" for key in others]
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines), bool(
        of_both
    ) and not decisive


def side_by_side(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The figures of two results; of several, those of the same settings beside each other, and then the others."""
    if len(a) == len(b) == 1:
        yield from beside(a[0], b[0])
        return
    left, right = ({cell_name(result["cell"]): result for result in results} for results in (a, b))
    for cell in left:
        if cell in right:
            yield f"{cell}:"
            yield from beside(left[cell], right[cell])
    for side, own, other in (("A", left, right), ("B", right, left)):
        for cell, result in own.items():
            if cell not in other:
                yield f"{side} alone, {cell}:"
                yield from (f"  {name}: {with_feature(figure)}" for name, figure in result["figures"].items())


def beside(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for name, figure in a["figures"].items():
        if name in b["figures"]:
            yield f"  {name}: {with_feature(figure)} and {with_feature(b['figures'][name])}"


def with_feature(figure: Mapping[str, Any]) -> str:
    return f"{number(figure)} ({figure['feature']})" if figure.get("feature") else number(figure)


def parts_of(record: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """The metrics that a result has figures of, and the features of each, with the images that they read.

    An older version has not written which, and they are all.
    """
    figures = [figure for result in record["results"] for figure in result["figures"].values()]
    everything = [*READ.values()]
    return {(str(f.get("metric")), str(f.get("feature"))): [*map(str, f.get("reads", everything))] for f in figures}


def decides(key: str, of_both: set[tuple[str, str]], read: set[str]) -> bool:
    """Whether a difference at this place of the protocol makes figures of these metrics, features and images
    incomparable."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group == "metrics":
        return any(name == metric for metric, _ in of_both)
    if group == "extractors":
        return any(name == feature for _, feature in of_both)
    return READ.get(group) in read and key not in ("real.files", "training.files")


def both(key: str, left: Mapping[str, str], right: Mapping[str, str]) -> str:
    return f"{key}: {left.get(key, '(not there)')} and {right.get(key, '(not there)')}"


def result_file(path: Path) -> Path:
    """The file that `path` means: that in it, if it is a folder."""
    return path / "evaluation.json" if path.is_dir() else path


def read_result(path: Path) -> Mapping[str, Any]:
    """An evaluation.json, plain values."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a file evaluation.json, or the folder that one is in")
    record = plain(read_json(path), str(path))
    try:
        for result in record["results"]:
            cell_name(result["cell"])
            [number(figure) for figure in result["figures"].values()]
        parts_of(record)
        if not record["results"] or not {*MEASURE} <= record["protocol"].keys():
            raise KeyError("results")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not an evaluation.json that diffusion_lit.evaluate wrote") from error
    whole: Mapping[str, Any] = record
    return whole
