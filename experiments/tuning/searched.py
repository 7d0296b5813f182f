"""Trials of a system together with the search that proposed them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cllm4rec.data.dataset import Dataset
from experiments.tuning.conditions import dataset_conditions, environment
from experiments.tuning.domains import Settings
from experiments.tuning.rows import Trial, TrialTable, best_trial
from experiments.tuning.search import EDGES, Search
from experiments.tuning.spaces import SPACES


@dataclass(frozen=True)
class Searched:
    """What is searched for a system, and its trials."""

    search: Search
    table: TrialTable

    @classmethod
    def of(cls, table: TrialTable, dataset: Dataset) -> "Searched":
        """The search of a table, by its conditions.

        Raises:
            SystemExit: its trials are those of another space.
            ValueError: its grid is too large.
        """
        conditions, description = table.conditions, dataset.description
        is_in_time = description is not None and description.split.in_time
        space = SPACES[conditions["system"]]
        domains = space.searched(is_in_time, json.loads(conditions["fixed"]))
        search = Search(domains, conditions["search"], int(conditions["seed"]))
        for number, trial in enumerate(table.trials):
            proposal = search.propose(table.trials[:number])
            if proposal is None or proposal.settings != trial.settings:
                raise SystemExit(
                    f"error: {table.file}: trial {number} is of another search space: name another --output"
                )
        return cls(search, table)

    @property
    def best(self) -> Trial | None:
        """The best trial; None if none succeeded."""
        number = best_trial(self.table.trials)
        return None if number is None else self.table.trials[number]

    def edges(self) -> list[str]:
        """The best values that lie at an edge of their range, in words."""
        best, trials = self.best, self.table.trials
        domains = self.search.widened(trials)
        return [
            f"{name} {best.outcome.values[name]} is at the {place} of {domains[name]}"
            for name, place in self.search.places(trials).items()
            if best is not None and place in EDGES
        ]


def trial_conditions(
    name: str, dataset: Dataset, label: str, search: str, seed: int, fixed: Settings
) -> Mapping[str, str]:
    """What the trials of a system are measured under: column -> text.

    Args:
        name: of the space.
        dataset: the whole dataset.
        label: its name.
        search: random or grid.
        seed: of draws and of training.
        fixed: settings that all trials have.
    """
    return {
        "system": name,
        **dataset_conditions(label, dataset),
        "search": search,
        "seed": str(seed),
        "fixed": json.dumps(fixed),
        **environment(),
    }
