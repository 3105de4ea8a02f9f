"""Curves as SVG, which a page holds as text: drawn without a script, and in the page's own colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Chart", "Curve", "evenly", "number", "outline"]

T = TypeVar("T")
Point = tuple[float, float]

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 34
MARGIN = 0.05
"""Of the upright axis, beyond the values."""
MAX_POINTS = 240
"""Points of a curve that are drawn: more could not be told apart."""
MAX_DOTS = 30
"""A curve of more points is a line alone."""
NUM_COLOURS, NUM_DASHES = 6, 4
LARGEST = 1e100
"""What is further from 0, or as near to it as one over this, is as good as not finite, or 0."""


@dataclass(frozen=True)
class Curve:
    """One line: its name, points (x, y) by rising x, and the numbers of its colour and dashes, which repeat."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve in the chart's coordinates."""

    name: str
    path: str
    dots: str
    """A path of points, where there are few."""
    points: list[list[Any]]
    """Of each point its place, and x and y in the words for a reader."""
    style: str
    """Classes of its colour and dashes."""
    last: str
    """Its last value."""
    note: str
    """What of it is not drawn."""


class Chart:
    """The places of ticks and lines in a `WIDTH` x `HEIGHT` box.

    A value that is not finite, or has no logarithm where that is asked for, leaves a gap, and is counted in the legend.

    Args:
        title, x_name: what is drawn, and against what.
        curves: the lines.
        log: whether the upright axis is logarithmic.
        from_zero: whether that axis begins at 0.
        log_x: whether the other one is logarithmic.
    """

    width, height, left, top = WIDTH, HEIGHT, LEFT, TOP
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def __init__(
        self,
        title: str,
        x_name: str,
        curves: Sequence[Curve],
        log: bool = False,
        from_zero: bool = False,
        log_x: bool = False,
    ) -> None:
        self.title, self.x_name, self.log = title, x_name, log
        self.log_x = log_x
        stretches = [self.drawable(curve) for curve in curves]
        points = [point for parts in stretches for part in parts for point in part]
        self.is_empty = not points
        self.across = Axis([x for x, _ in points] or [1.0], self.left, self.right, log_x, False, 0.0)
        self.up = Axis([y for _, y in points] or [1.0], self.bottom, self.top, log, from_zero, MARGIN)
        self.x_ticks, self.y_ticks = self.across.ticks(5), self.up.ticks(5)
        self.lines = [self.line(curve, parts) for curve, parts in zip(curves, stretches, strict=True)]

    def drawable(self, curve: Curve) -> list[list[Point]]:
        """The stretches of a curve between values that cannot be drawn."""
        parts: list[list[Point]] = [[]]
        for x, y in curve.points:
            if all(fits(value, log) for value, log in ((x, self.log_x), (y, self.log))):
                parts[-1].append((x, y))
            elif parts[-1]:
                parts.append([])
        return [part for part in parts if part]

    def line(self, curve: Curve, parts: Sequence[Sequence[Point]]) -> Line:
        shown = [outline(part, max(4, MAX_POINTS // len(parts))) for part in parts]
        placed = [[(self.across.place(x), self.up.place(y)) for x, y in part] for part in shown]
        flat = [(x, y) for part in shown for x, y in part]
        spots = [spot for part in placed for spot in part]
        return Line(
            curve.name,
            "".join(f"M{'L'.join(f'{x:.1f},{y:.1f}' for x, y in part)}" for part in placed),
            "".join(f"M{x:.1f},{y:.1f}h0" for x, y in spots) if len(spots) <= MAX_DOTS else "",
            [[round(x, 1), round(y, 1), number(a), number(b)] for (x, y), (a, b) in zip(spots, flat, strict=True)],
            f"colour{curve.colour % NUM_COLOURS} dash{curve.dash % NUM_DASHES}",
            number(curve.points[-1][1]) if curve.points else "",
            self.note(curve),
        )

    def note(self, curve: Curve) -> str:
        unbounded = sum(not fits(y) for _, y in curve.points)
        negative = sum(not fits(y, self.log) for _, y in curve.points) - unbounded
        said = [f"{unbounded} not finite"] * bool(unbounded) + [f"{negative} not above 0"] * bool(negative)
        return ", ".join(said)


def fits(value: float, log: bool = False) -> bool:
    """Whether a value can be drawn, on a logarithmic axis or another."""
    return abs(value) < LARGEST and (value > 1 / LARGEST or not log)


def outline(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of a curve's points, by which it looks as it does by all.

    They are both ends, and of each stretch between them both extremes: a single spike is among them.
    """
    if len(points) <= most:
        return list(points)
    inner, count = points[1:-1], (most - 2) // 2
    chosen: list[Point] = []
    for i in range(count):
        stretch = inner[i * len(inner) // count : (i + 1) * len(inner) // count]
        extremes = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        chosen += sorted(extremes)
    return [points[0], *chosen, points[-1]]


class Axis:
    """Values to places between `first` and `last`."""

    def __init__(
        self, values: Sequence[float], first: float, last: float, log: bool, from_zero: bool, margin_share: float
    ) -> None:
        self.first, self.last, self.log = first, last, log
        low, high = min(values), max(values)
        if from_zero and not log:
            low, high = min(low, 0.0), max(high, 0.0)
        margin = abs(low) / 2 if abs(low) > 1 / LARGEST else 0.5
        if low == high or (not log and high - low <= 1e-12 * abs(high)):
            low, high = (low / 2, high * 2) if log else (low - margin, high + margin)
        self.low, self.high = self.scaled(low), self.scaled(high)
        space = margin_share * (self.high - self.low)
        self.low, self.high = self.low - space * (not from_zero or low < 0 or log), self.high + space

    def scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def place(self, value: float) -> float:
        return self.first + (self.last - self.first) * (self.scaled(value) - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[Tick]:
        """Round values, some `count` of them, that lie on the axis."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        choices = [MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)]
        if self.log:
            choices += [LogLocator(subs=subs, numticks=99).tick_values(low, high) for subs in ((1, 2, 5), (1, 3), (1,))]
        slack = 1e-9 * (high - low)
        inside = [[float(v) for v in values if low - slack <= v <= high + slack] for values in choices]
        inside = [[v for v in values if v > 0 or not self.log] for values in inside]
        few = [values for values in inside if len(values) <= count + 2]
        values = max(few, key=len) if few else evenly(inside[-1], count)
        return [Tick(round(self.place(v), 1), number(v)) for v in values]


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def number(value: float) -> str:
    """A value as a reader likes it: 4 digits, thousands separated."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.3g}"
