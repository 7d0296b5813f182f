"""The chosen settings of a dataset: quality, where each value lies in its range, commands."""

from collections.abc import Mapping

from experiments.report import markdown_table
from experiments.tuning.rows import METRIC, Outcome, Trial, best_trial
from experiments.tuning.search import EDGES
from experiments.tuning.searched import Searched


def chosen_settings(dataset: str, searched: Mapping[str, Searched]) -> str:
    """The page of a dataset, in Markdown.

    Args:
        dataset: its name.
        searched: name of the space -> search and trials.
    """
    parts = [f"# Chosen settings: {dataset}", _qualities(searched)]
    places = _places(searched)
    if places:
        parts.append(markdown_table(["system", "setting", "chosen", "range", "place"], places))
    failed = [
        f"- {name}, trial {number}: {trial.outcome.failure}"
        for name, each in searched.items()
        for number, trial in enumerate(each.table.trials)
        if trial.outcome.failure
    ]
    if failed:
        parts.append("\n".join(["Trials that failed:", "", *failed]))
    return "\n\n".join([*parts, _conditions(searched), *_commands(searched)]) + "\n"


def _qualities(searched: Mapping[str, Searched]) -> str:
    """The best trial of each system next to that of its defaults, and what the search cost."""
    header = ["system", f"validation {METRIC}", "of the defaults", "best trial", "trials", "failed"]
    header += ["minutes", "peak memory (GiB)"]
    ranked = sorted(searched.items(), key=lambda item: -_rank(item[1].best))
    return markdown_table(header, [[name, *_quality_cells(each)] for name, each in ranked])


def _quality_cells(searched: Searched) -> list[str]:
    trials, best = searched.table.trials, searched.best
    costs = [trial.outcome.cost for trial in trials]
    return [
        "" if best is None else _quality(best.outcome),
        _quality(trials[0].outcome),
        "" if best is None else str(best_trial(trials)),
        str(len(trials)),
        str(sum(bool(trial.outcome.failure) for trial in trials)),
        f"{sum(cost.seconds for cost in costs) / 60:.1f}",
        f"{max(cost.peak_mib for cost in costs) / 1024:.2f}",
    ]


def _rank(best: Trial | None) -> float:
    """Quality of the best trial; below all others if none succeeded."""
    return -1.0 if best is None or best.outcome.quality is None else best.outcome.quality


def _quality(outcome: Outcome) -> str:
    return "" if outcome.quality is None else f"{outcome.quality:.4f}"


def _places(searched: Mapping[str, Searched]) -> list[list[str]]:
    """The chosen value of each setting, and where it lies in its range; edges are bold."""
    return [
        [
            name,
            setting,
            str(best.outcome.values[setting]),
            str(each.search.widened(each.table.trials)[setting]),
            f"**{place}**" if place in EDGES else str(place),
        ]
        for name, each in searched.items()
        if (best := each.best) is not None
        for setting, place in each.search.places(each.table.trials).items()
    ]


def _conditions(searched: Mapping[str, Searched]) -> str:
    """What the trials were measured under, a line for the systems that share it."""
    shown: dict[str, list[str]] = {}
    for name, each in searched.items():
        conditions = {key: text for key, text in each.table.conditions.items() if key != "system" and text}
        code = dict.fromkeys(trial.outcome.code_sha256 for trial in each.table.trials)
        conditions["code_sha256"] = " and ".join(code)
        shown.setdefault("; ".join(f"{key} {text}" for key, text in conditions.items()), []).append(name)
    lines = [f"- {', '.join(names)}: {text}" for text, names in shown.items()]
    return "\n".join(["Conditions:", "", *lines])


def _commands(searched: Mapping[str, Searched]) -> list[str]:
    """The command that repeats the best trial of each system."""
    lines = ["Commands, where the variables DATASET and RUN name the dataset folder and a new one:"]
    for name, each in searched.items():
        if (best := each.best) is not None:
            command = best.command.replace(" && ", " && \\\n        ")
            lines += [f"{name}:", f"    {command}"]
    return lines
