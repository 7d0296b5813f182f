"""Searches: their order, edges of ranges, and widening on functions with a known optimum."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.commands import Cost
from experiments.tune import Budget, run_trials
from experiments.tuning.domains import Domain, Numbers, Place, Settings, choices, ratios, steps
from experiments.tuning.rows import Outcome, Trial, TrialTable, best_trial
from experiments.tuning.search import Search
from experiments.tuning.searched import Searched

PENALTY = ratios(25.0, 1600.0)
FACTORS = ratios(64, 1024, whole=True, floor=1)
SHARE = steps(0.0, 1.0, 0.25, floor=0.0, ceiling=1.0)
COST = Cost(seconds=30.0, cpu_seconds=30.0, peak_mib=100.0)
CODE = "c" * 64
Quality = Callable[[Settings], float | None]


def searched(
    domains: dict[str, Domain],
    defaults: Settings,
    quality: Quality,
    n: int,
    kind: str = "random",
    seed: int = 0,
) -> Searched:
    """The trials of a search with a budget of n, where a function has the place of a system."""

    def measure(settings: Settings) -> Outcome:
        values = {**defaults, **settings}
        value = quality(values)
        if value is None:
            return Outcome(None, {}, COST, CODE, "it failed")
        return Outcome(value, values, COST, CODE)

    search = Search(domains, kind, seed)
    found = Searched(search, TrialTable(Path("unwritten"), {"system": "a function"}, []))
    run_trials(found, Budget(trials=n), measure, str)
    return found


@pytest.fixture(autouse=True)
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are not written."""
    monkeypatch.setattr(TrialTable, "add", lambda table, trial: table.trials.append(trial))


def settings(found: Searched) -> list[Settings]:
    return [trial.settings for trial in found.table.trials]


def peak(name: str, optimum: float) -> Callable[[Settings], float]:
    """A quality that falls with the distance from an optimum, on a logarithmic scale."""
    return lambda values: 0.5 / (1 + abs(math.log2(float(values[name]) / optimum)))


def test_grids() -> None:
    assert PENALTY.grid == [25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0]
    assert FACTORS.grid == [64, 128, 256, 512, 1024]
    assert steps(0.0, 0.8, 0.2).grid == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_draws_cover_the_range_and_keep_to_it() -> None:
    drawn = [PENALTY.draw(n / 1000) for n in range(1000)]
    assert drawn == sorted(drawn) and drawn[0] == 25.0 and 1580 < float(drawn[-1]) <= 1600
    assert drawn[500] == 200.0, "half of a logarithmic scale"
    assert all(float(f"{value:.3g}") == value for value in drawn)
    assert {FACTORS.draw(n / 1000) for n in range(1000)} == set(FACTORS.grid)
    assert SHARE.draw(0.3) == 0.3
    assert [choices("a", "b").draw(share) for share in (0.0, 0.49, 0.5, 0.99)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("domain", "value", "place"),
    [
        (PENALTY, 200.0, Place.INSIDE),
        (PENALTY, 1600.0, Place.UPPER_EDGE),
        (PENALTY, 1500.0, Place.UPPER_EDGE),  # less than a step from the end
        (PENALTY, 800.0, Place.INSIDE),
        (PENALTY, 3200.0, Place.UPPER_EDGE),
        (PENALTY, 25.0, Place.LOWER_EDGE),
        (PENALTY, 3.0, Place.LOWER_EDGE),
        (PENALTY, 50.0, Place.INSIDE),
        (PENALTY, 0.0, Place.NATURAL_BOUND),
        (FACTORS, 1024, Place.UPPER_EDGE),
        (SHARE, 1.0, Place.NATURAL_BOUND),
        (SHARE, 0.0, Place.NATURAL_BOUND),
        (SHARE, 0.97, Place.INSIDE),  # there is nothing beyond the end
        (steps(0.0, 0.8, 0.1, ceiling=0.9), 0.8, Place.UPPER_EDGE),
        (steps(0.0, 0.8, 0.1, ceiling=0.9), 0.9, Place.NATURAL_BOUND),
    ],
)
def test_edges(domain: Numbers, value: float, place: Place) -> None:
    assert domain.place_of(value) is place


def test_an_edge_counts_until_the_step_beyond_was_tried_with_the_other_values() -> None:
    search = Search({"penalty": PENALTY, "share": SHARE})

    def place(*further: Settings) -> Place:
        best = Outcome(0.3, {"penalty": 1600.0, "share": 0.5}, COST, CODE)
        worse = [Outcome(0.2, values, COST, CODE) for values in further]
        trials = [Trial("random", outcome.values, "", outcome) for outcome in (best, *worse)]
        return search.places(trials)["penalty"]

    assert place() is place({"penalty": 3200.0, "share": 0.7}) is Place.UPPER_EDGE
    assert place({"penalty": 1600.0, "share": 0.7}, {"penalty": 6400.0, "share": 0.5}) is Place.UPPER_EDGE
    assert place({"penalty": 3200.0, "share": 0.5}) is Place.INSIDE


def test_a_step_beyond_an_edge_ends_at_the_natural_bound() -> None:
    assert PENALTY.beyond(1600.0, Place.UPPER_EDGE) == 3200.0
    assert PENALTY.beyond(1500.0, Place.UPPER_EDGE) == 3000.0
    assert PENALTY.beyond(25.0, Place.LOWER_EDGE) == 12.5
    assert FACTORS.beyond(1024, Place.UPPER_EDGE) == 2048
    assert ratios(2, 8, whole=True, floor=1).beyond(2, Place.LOWER_EDGE) == 1
    assert steps(0.0, 0.8, 0.2, ceiling=0.9).beyond(0.8, Place.UPPER_EDGE) == 0.9
    assert steps(0.3, 0.8, 0.5, floor=0.0).beyond(0.3, Place.LOWER_EDGE) == 0.0


def test_a_range_reaches_to_a_value_by_whole_steps() -> None:
    assert PENALTY.reaching(5000.0).grid == [*PENALTY.grid, 3200.0, 6400.0]
    assert PENALTY.reaching(10.0).grid == [6.25, 12.5, *PENALTY.grid]
    assert FACTORS.reaching(2048).grid == [*FACTORS.grid, 2048]
    for value in (0.0, 25.0, 333.0, 1600.0):
        assert PENALTY.reaching(value) == PENALTY
    assert SHARE.reaching(0.97) == SHARE


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_a_longer_search_begins_as_a_shorter_one(kind: str) -> None:
    domains = {"penalty": PENALTY, "share": SHARE}
    defaults, quality = {"penalty": 100.0, "share": 0.5}, peak("penalty", 6400.0)
    long, short = (settings(searched(domains, defaults, quality, n, kind)) for n in (25, 11))
    assert long[:11] == short and len(long) == 25 and long[0] == {}
    other = settings(searched(domains, defaults, quality, 11, kind, seed=1))
    assert other[0] == {} and other[1:] != short[1:]
    assert len({tuple(each.items()) for each in long}) == 25, "nothing is tried twice"


def test_draws_are_a_function_of_seed_trial_and_setting() -> None:
    """A setting more, or other qualities, leave the draws of a setting as they are."""
    defaults = {"penalty": 200.0, "share": 0.5}
    alone, both = (
        searched({name: {"penalty": PENALTY, "share": SHARE}[name] for name in names}, defaults, quality, 8)
        for names, quality in (
            (("penalty",), peak("penalty", 200.0)),
            (("share", "penalty"), lambda values: 0.1 + 0.2 * float(values["share"])),
        )
    )
    assert [each.get("penalty") for each in settings(alone)] == [
        each.get("penalty") for each in settings(both)
    ]


def test_a_grid_is_tried_once_and_ends() -> None:
    domains: dict[str, Domain] = {"share": SHARE, "start": choices("a", "b")}
    quality = {(share, start): 0.1 for share in SHARE.grid for start in "ab"} | {(0.5, "b"): 0.3}
    found = searched(
        domains,
        {"share": 0.25, "start": "a"},
        lambda values: quality[float(values["share"]), str(values["start"])],
        100,
        "grid",
    )
    tried = [(trial.outcome.values["share"], trial.outcome.values["start"]) for trial in found.table.trials]
    assert sorted(tried) == sorted(quality), "the defaults are a point of it"
    assert found.best is not None and found.best.settings == {"share": 0.5, "start": "b"}
    assert found.search.places(found.table.trials) == {"share": Place.INSIDE, "start": Place.CHOICE}


def test_a_grid_that_nobody_can_try_is_refused() -> None:
    domains: dict[str, Domain] = {f"setting{n}": PENALTY for n in range(8)}
    with pytest.raises(ValueError, match="5,764,801 points: search at random"):
        Search(domains, "grid")


@pytest.mark.parametrize("kind", ["random", "grid"])
@pytest.mark.parametrize("optimum", [12_800.0, 3.125])
def test_a_range_is_widened_until_the_best_is_inside(kind: str, optimum: float) -> None:
    found = searched({"penalty": PENALTY}, {"penalty": 200.0}, peak("penalty", optimum), 40, kind)
    assert found.best is not None
    penalty = float(found.best.outcome.values["penalty"])
    assert optimum / 2 < penalty < optimum * 2
    assert found.search.places(found.table.trials) == {"penalty": Place.INSIDE} and not found.edges()
    if kind == "grid":
        assert len(found.table.trials) < 20, "the grid and the steps beyond it; then nothing is left"


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_settings_are_widened_together(kind: str) -> None:
    """The optimum is outside of two ranges, and inside of a third."""

    def quality(values: Settings) -> float:
        misses = (
            math.log2(float(values["penalty"]) / 6400),
            math.log2(float(values["factors"]) / 4096),
            2 * (float(values["share"]) - 0.5),
        )
        return 0.5 / (1 + sum(miss * miss for miss in misses))

    domains: dict[str, Domain] = {"penalty": PENALTY, "factors": FACTORS, "share": SHARE}
    found = searched(domains, {"penalty": 100.0, "factors": 256, "share": 0.0}, quality, 60, kind)
    assert found.best is not None
    assert 3200 <= float(found.best.outcome.values["penalty"]) <= 12_800
    assert 2048 <= float(found.best.outcome.values["factors"]) <= 8192
    assert set(found.search.places(found.table.trials).values()) == {Place.INSIDE}


def test_a_natural_bound_is_not_widened() -> None:
    found = searched({"share": SHARE}, {"share": 0.5}, lambda values: float(values["share"]), 30, "grid")
    assert found.search.places(found.table.trials) == {"share": Place.NATURAL_BOUND}
    assert {trial.origin for trial in found.table.trials} == {"defaults", "grid"} and not found.edges()


def test_an_edge_where_the_budget_ends_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    found = searched({"penalty": PENALTY}, {"penalty": 200.0}, peak("penalty", 1e6), 7, "grid")
    assert found.edges() == ["penalty 1600.0 is at the upper edge of 25 to 1600"]
    assert "a function: penalty 1600.0 is at the upper edge of 25 to 1600" in capsys.readouterr().out


def test_what_failed_beyond_an_edge_is_not_tried_again() -> None:
    def quality(values: Settings) -> float | None:
        penalty = float(values["penalty"])
        return None if penalty > 1600 else penalty / 10_000

    found = searched({"penalty": PENALTY}, {"penalty": 200.0}, quality, 40, "grid")
    failed = [trial.settings for trial in found.table.trials if trial.outcome.failure]
    assert failed == [{"penalty": 3200.0}]
    assert found.edges() == ["penalty 1600.0 is at the upper edge of 25 to 1600"], "the edge stays reported"


def test_without_a_success_the_search_goes_on_and_nothing_is_chosen() -> None:
    found = searched({"penalty": PENALTY}, {}, lambda values: None, 12)
    assert len(found.table.trials) == 12 and found.best is None and not found.edges()


def test_the_first_of_equal_trials_is_the_best() -> None:
    outcomes = (None, 0.1, 0.3, 0.3, 0.2)
    trials = [Trial("random", {}, "", Outcome(quality, {}, COST, CODE)) for quality in outcomes]
    assert best_trial(trials) == 2 and best_trial(trials[:1]) is None and best_trial([]) is None


def test_a_budget_is_of_trials_or_of_minutes() -> None:
    trials = [Trial("random", {}, "", Outcome(0.1, {}, COST, CODE))] * 4  # of 30 seconds
    assert Budget(trials=4).is_spent(trials) and not Budget(trials=5).is_spent(trials)
    assert Budget(minutes=2.0).is_spent(trials) and not Budget(minutes=2.1).is_spent(trials)
    assert not Budget(minutes=0.1).is_spent([])
