"""Values of a setting that a search tries: numbers between two ends, or choices without an order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

Value = bool | int | float | str
Settings = Mapping[str, Value]

DIGITS_OF_DRAWS = 3  # significant digits, so that commands stay readable
DIGITS = 6
TOLERANCE = 1e-3  # of a place on the scale, in steps: values are rounded


class Place(StrEnum):
    """Where a value lies in the range of its setting."""

    INSIDE = "inside"
    LOWER_EDGE = "lower edge"
    UPPER_EDGE = "upper edge"
    NATURAL_BOUND = "natural bound"
    CHOICE = "choice"


@dataclass(frozen=True)
class Numbers:
    """Numbers on a linear or a logarithmic scale.

    Attributes:
        low, high: first and last value of the grid.
        step: difference of two neighbours on the grid, or their ratio.
        logarithmic: whether `step` is a ratio.
        whole: whether the values are whole. These are drawn from the grid, so that widths stay powers of two.
        floor, ceiling: natural bounds, beyond which there is nothing to try; None where there is none.
    """

    low: float
    high: float
    step: float
    logarithmic: bool
    whole: bool = False
    floor: float | None = None
    ceiling: float | None = None

    @property
    def grid(self) -> list[Value]:
        """The values from `low` to `high`, in steps."""
        return [self._value(place) for place in range(round(self._place(self.high)) + 1)]

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def draw(self, uniform: float) -> Value:
        """The value at a share of the scale from `low` to `high`.

        Args:
            uniform: at least 0, below 1.
        """
        if self.whole:
            return self.grid[int(uniform * len(self.grid))]
        drawn = _rounded(float(self._value(uniform * self._place(self.high))), DIGITS_OF_DRAWS)
        return min(max(drawn, self.low), self.high)

    def place_of(self, value: float) -> Place:
        """Where a value lies in the range from `low` to `high`.

        A value less than a step from an end, or outside, is at that edge, unless the end is a natural bound.
        Zero, which is not on a logarithmic scale, is one.
        """
        place = self._place(value)
        if value in (self.floor, self.ceiling) or math.isinf(place):
            return Place.NATURAL_BOUND
        if self.high != self.ceiling and place > self._place(self.high) - 1 + TOLERANCE:
            return Place.UPPER_EDGE
        if self.low != self.floor and place < 1 - TOLERANCE:
            return Place.LOWER_EDGE
        return Place.INSIDE

    def beyond(self, value: float, edge: Place) -> Value:
        """The value a step beyond another, towards an edge; at most the natural bound."""
        return self._bounded(self._place(value) + (1 if edge == Place.UPPER_EDGE else -1))

    def reaching(self, value: float) -> "Numbers":
        """These numbers with the nearer end moved, by whole steps, until a value is between the ends.

        Zero is not on a logarithmic scale, which stays as it is.
        """
        place, last = self._place(value), self._place(self.high)
        if math.isinf(place):
            return self
        below = max(0, math.ceil(-place - TOLERANCE))
        above = max(0, math.ceil(place - last - TOLERANCE))
        return replace(self, low=self._bounded(-below), high=self._bounded(last + above))

    def _bounded(self, place: float) -> int | float:
        """The value at a place, or the natural bound before it."""
        value = self._value(place)
        if self.ceiling is not None and value > self.ceiling:
            return self.ceiling
        return self.floor if self.floor is not None and value < self.floor else value

    def _place(self, value: float) -> float:
        """Steps from `low` to a value."""
        if not self.logarithmic:
            return (value - self.low) / self.step
        return math.log(value / self.low, self.step) if value > 0 else -math.inf

    def _value(self, place: float) -> int | float:
        value = self.low * self.step**place if self.logarithmic else self.low + self.step * place
        return round(value) if self.whole else _rounded(value, DIGITS)


@dataclass(frozen=True)
class Choices:
    """Values without an order, all of which may be tried."""

    grid: list[Value]

    def __str__(self) -> str:
        return ", ".join(map(str, self.grid))

    def draw(self, uniform: float) -> Value:
        """The choice at a share of the list, from 0 to below 1."""
        return self.grid[int(uniform * len(self.grid))]


Domain = Numbers | Choices


def _rounded(value: float, digits: int) -> float:
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def ratios(
    low: float, high: float, ratio: float = 2.0, *, whole: bool = False, floor: float | None = None
) -> Numbers:
    """Numbers on a logarithmic scale: low, low x ratio, ..., high."""
    return Numbers(low, high, ratio, logarithmic=True, whole=whole, floor=floor)


def steps(
    low: float,
    high: float,
    step: float,
    *,
    whole: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Numbers:
    """Numbers on a linear scale: low, low + step, ..., high."""
    return Numbers(low, high, step, logarithmic=False, whole=whole, floor=floor, ceiling=ceiling)


def choices(*values: Value) -> Choices:
    """Values without an order."""
    return Choices(list(values))
