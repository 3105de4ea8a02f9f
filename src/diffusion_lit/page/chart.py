"""Curves as SVG, which a page holds as text: drawn without a script, and in the page's own colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Chart", "Curve", "evenly", "number"]

T = TypeVar("T")

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 34
MAX_POINTS = 300
"""Points of a curve that are drawn: more could not be told apart."""


@dataclass(frozen=True)
class Curve:
    """One line: its name, points (x, y) by rising x, colour and dashes (numbers of the page's styles)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve in the chart's coordinates: its path, and each point with what a reader is told of it."""

    name: str
    path: str
    points: list[list[Any]]
    colour: int
    dash: int
    last: str


class Chart:
    """The places of ticks and lines in a `WIDTH` x `HEIGHT` box.

    Values that are not finite, or have no logarithm where it is asked for, are left out.

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
        kept = [(curve, self.drawable(curve, log, log_x)) for curve in curves]
        xs = [x for _, points in kept for x, _ in points]
        ys = [y for _, points in kept for _, y in points]
        self.is_empty = not xs
        across = Axis(xs or [0.0], self.left, self.right, log_x, False)
        up = Axis(ys or [0.0], self.bottom, self.top, log, from_zero)
        self.x_ticks, self.y_ticks = across.ticks(5), up.ticks(5)
        self.lines = [
            Line(
                curve.name,
                path_of([(across.place(x), up.place(y)) for x, y in points]),
                [[round(across.place(x), 1), round(up.place(y), 1), number(x), number(y)] for x, y in points],
                curve.colour,
                curve.dash,
                number(points[-1][1]),
            )
            for curve, points in kept
            if points
        ]

    @staticmethod
    def drawable(curve: Curve, log: bool, log_x: bool) -> list[tuple[float, float]]:
        finite = [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]
        return evenly([(x, y) for x, y in finite if (y > 0 or not log) and (x > 0 or not log_x)], MAX_POINTS)


class Axis:
    """Values to places between `first` and `last`."""

    def __init__(self, values: Sequence[float], first: float, last: float, log: bool, from_zero: bool) -> None:
        self.first, self.last, self.log = first, last, log
        low, high = min(values), max(values)
        if from_zero and not log:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        self.low, self.high = self.scaled(low), self.scaled(high)

    def scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def place(self, value: float) -> float:
        return self.first + (self.last - self.first) * (self.scaled(value) - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[Tick]:
        """Round values, some `count` of them, that lie on the axis."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        decades = self.high - self.low
        if self.log and decades >= 1:
            values = LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=count + 3).tick_values(low, high)
        else:
            values = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
        inside = [float(v) for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9) or low <= v <= high]
        return [Tick(round(self.place(v), 1), number(v)) for v in inside if v > 0 or not self.log]


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through the points; of a single one, a dot."""
    if len(points) == 1:
        points = [points[0], (points[0][0] + 0.1, points[0][1])]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def number(value: float) -> str:
    """A value as a reader likes it: 4 digits, thousands separated."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.3g}"
