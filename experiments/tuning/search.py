"""What is tried next: a function of the space, the seed and the ended trials, not of the budget."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from experiments.tuning.domains import Choices, Domain, Numbers, Place, Settings
from experiments.tuning.rows import Trial, best_trial

EDGES = (Place.LOWER_EDGE, Place.UPPER_EDGE)
KINDS = ("random", "grid")
DEFAULTS, WIDENED = "defaults", "widened"
# From this trial on, every second one is a step beyond an edge, where the best one lies at an edge. Before,
# the best of a few says little; and if all were such steps, nothing else would be searched.
FIRST_WIDENED = 8
REDRAWN = 1000  # times, where all that was drawn was tried before
LARGEST_GRID = 1_000_000


@dataclass(frozen=True)
class Proposal:
    """Settings to try.

    Attributes:
        origin: defaults, random, grid or widened.
        settings: the searched ones; none for the defaults.
    """

    origin: str
    settings: Settings


@dataclass(frozen=True)
class Search:
    """A search over settings. Trial 0 has the defaults of the package.

    Attributes:
        domains: setting -> values.
        kind: random, or grid: each point of the grid once, in random order.
        seed: of the draws.
    """

    domains: Mapping[str, Domain]
    kind: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        size = prod(len(values.grid) for values in self.domains.values())
        if self.kind == "grid" and size > LARGEST_GRID:
            raise ValueError(f"the grid has {size:,} points: search at random, or fix some of the settings")

    def propose(self, trials: Sequence[Trial]) -> Proposal | None:
        """What to try after these trials; None if all was tried."""
        if not trials:
            return Proposal(DEFAULTS, {})
        tried = [settings for trial in trials for settings in (trial.settings, trial.outcome.values)]
        edges = [(name, place) for name, place in self.places(trials).items() if place in EDGES]
        beyond = (self._beyond(_best_values(trials), *edge) for edge in edges)
        widened = next((settings for settings in beyond if settings not in tried), None)
        if widened is not None and len(trials) >= FIRST_WIDENED and len(trials) % 2 == 0:
            return Proposal(WIDENED, widened)
        candidates = self._grid_points() if self.kind == "grid" else self._draws(trials)
        for settings in candidates:
            if settings not in tried:
                return Proposal(self.kind, settings)
        return None if widened is None else Proposal(WIDENED, widened)

    def places(self, trials: Sequence[Trial]) -> dict[str, Place]:
        """Where each value of the best trial lies in its range.

        A value at an edge counts as inside once the step beyond was tried with the other values of that
        trial, and was not better.
        """
        values, places = _best_values(trials), {}
        for name, domain in self.domains.items() if values else ():
            if isinstance(domain, Choices):
                places[name] = Place.CHOICE
                continue
            places[name] = domain.place_of(_number(values[name]))
            if places[name] in EDGES:
                beyond = self._beyond(values, name, places[name])
                if any(trial.outcome.values == beyond for trial in trials):
                    places[name] = Place.INSIDE
        return places

    def widened(self, trials: Sequence[Trial]) -> dict[str, Domain]:
        """Setting -> values, a range with the value of the best trial."""
        values = _best_values(trials)
        return {
            name: domain.reaching(_number(values[name])) if values and isinstance(domain, Numbers) else domain
            for name, domain in self.domains.items()
        }

    def _beyond(self, values: Settings, name: str, edge: Place) -> Settings:
        """Settings with one value moved a step beyond the edge at which it lies."""
        domain = self.domains[name]
        assert isinstance(domain, Numbers)
        return {**values, name: domain.beyond(_number(values[name]), edge)}

    def _draws(self, trials: Sequence[Trial]) -> Iterator[Settings]:
        """Random settings of the next trial."""
        domains = self.widened(trials)
        for attempt in range(REDRAWN):
            yield {
                # a text as seed gives the same number everywhere, whatever settings are added
                name: domain.draw(random.Random(f"{self.seed}/{len(trials)}/{attempt}/{name}").random())
                for name, domain in domains.items()
            }

    def _grid_points(self) -> Iterator[Settings]:
        """All points of the grid, in an order of the seed."""
        for number in self._order:
            point = {}
            for name, domain in self.domains.items():
                number, index = divmod(number, len(domain.grid))
                point[name] = domain.grid[index]
            yield point

    @cached_property
    def _order(self) -> list[int]:
        numbers = list(range(prod(len(values.grid) for values in self.domains.values())))
        random.Random(f"{self.seed}/grid").shuffle(numbers)
        return numbers


def _number(value: object) -> float:
    """A value of a setting that is searched as a number."""
    assert isinstance(value, int | float), value
    return value


def _best_values(trials: Sequence[Trial]) -> Settings:
    """Values of the best trial; none if no trial succeeded."""
    best = best_trial(trials)
    return {} if best is None else trials[best].outcome.values
