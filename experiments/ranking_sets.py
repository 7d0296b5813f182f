"""A set of `experiments.full_ranking`: its datasets and planned rows, what was measured, and its table."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from cllm4rec.commands.entry import say
from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from experiments.commands import CommandFailed
from experiments.json_files import read_object
from experiments.protocols import Protocol, dataset_hashes
from experiments.ranking_rows import Row, rows_to_measure
from experiments.ranking_runs import measured_language_model, measured_run
from experiments.report import SystemRow, comparison_table, is_evaluated, mean_differences, run_folder
from experiments.tuning.conditions import code_hash

RESULTS_FILE, TABLE_FILE = "results.json", "table.md"
LOCK_SECONDS = 1.0  # for a row that another call measures
WRITING_SECONDS = 60.0  # in which another call writes its row


class Deferred(Exception):  # noqa: N818 - no error: the row is tried again
    """A row cannot be measured yet."""


@dataclass(frozen=True)
class RankedSet:
    """The rows of one set that a call measures.

    Attributes:
        name: of the set.
        protocol: how its events are split.
        datasets: seed -> folder.
        hashes: seed -> hashes of the dataset.
        planned: row -> its flags.
        output: folder of the set and of the protocol.
        processes: of each command.
    """

    name: str
    protocol: Protocol
    datasets: Mapping[int, Path]
    hashes: Mapping[int, Mapping[str, str]]
    planned: Mapping[str, Row]
    output: Path
    processes: int

    @classmethod
    def begin(
        cls,
        data: Path,
        protocol: Protocol,
        seeds: Sequence[int],
        rows: Sequence[str],
        output: Path,
        encoders: Mapping[str, str],
        tuned: Path | None,
        processes: int,
    ) -> Self:
        """Make the datasets, and check that the rows can stand beside those of earlier calls.

        Args:
            data: folder that a recipe wrote.
            protocol, seeds, rows: to measure.
            output: folder of the set and of the protocol.
            encoders: name in the table -> model, of the rows that have one.
            tuned: OUTPUT of `experiments.tune`.
            processes: of each command.

        Raises:
            CommandFailed: a dataset could not be prepared.
            SystemExit: a row or seed cannot be measured, or `output` holds other rows under its name.
        """
        name = data.resolve().name
        datasets = {seed: protocol.dataset(data, seed, output / f"seed{seed}") for seed in seeds}
        hashes = dict(zip(seeds, dataset_hashes([*datasets.values()]), strict=True))
        planned = rows_to_measure(rows, encoders, tuned, data, hashes[seeds[0]]["data_sha256"])
        begun = cls(name, protocol, datasets, hashes, planned, output.resolve(), processes)
        results = begun.results()
        for key in begun.keys:
            begun._check(key, results)
        return begun

    @property
    def keys(self) -> dict[str, tuple[str, int]]:
        """Key in results.json -> row and seed."""
        return {f"{name}/{seed}": (name, seed) for seed in self.datasets for name in self.planned}

    def results(self) -> dict[str, Any]:
        """What has been measured, by this call or another one."""
        return read_results(self.output)

    def _check(self, key: str, results: Mapping[str, Any]) -> None:
        """Raise SystemExit if a row, or the row whose run it measures, is not measured as planned."""
        name, seed = self.keys[key]
        planned = self.planned[name]
        for row in filter(None, (name, planned.run_of)):
            measured = results.get(f"{row}/{seed}")
            if measured is None:
                continue
            for what, same in (
                ("measured on another dataset", measured.get("dataset") == self.hashes[seed]),
                ("with other settings", measured.get("flags") == list(planned.flags)),
                ("with another model", measured.get("encoder") in (None, planned.encoder)),
            ):
                if not same:
                    text = f"error: {self.output} holds {row}/{seed}, {what}: name another --output"
                    raise SystemExit(text)

    def _is_measured(self, key: str, results: Mapping[str, Any]) -> bool:
        """Whether a row was measured, and its run is as it was."""
        name, seed = self.keys[key]
        run_of = self.planned[name].run_of
        if not self._has(name, seed, results):
            return False
        of_run = results.get(f"{run_of}/{seed}", {}).get("metrics")
        return run_of is None or results[key].get("of_run") == of_run

    def _has(self, name: str, seed: int, results: Mapping[str, Any]) -> bool:
        """Whether a row has its line in results.json, and its folder the metrics."""
        return f"{name}/{seed}" in results and is_evaluated(self._run(name, seed))

    def _run(self, name: str, seed: int) -> Path:
        """The run folder of a row."""
        return run_folder(self.output / f"seed{seed}", name)

    def _locked(self, name: str, seed: int, wait: float) -> AbstractContextManager[None]:
        """The lock of a row, which its call holds while it measures the row."""
        run = self._run(name, seed)
        return locked(run.with_name(f"{run.name}.begun.json"), wait)

    def measure(self) -> list[str]:
        """Measure the rows that have not been, write and print the table.

        Other calls may measure rows of the set at the same time: those are waited for after all others.

        Returns:
            The runs that failed, as `row/seed`.
        """
        code, failed = code_hash(), []
        self.output.mkdir(parents=True, exist_ok=True)
        waiting: list[str] = []
        for key in self.keys:
            try:
                self._measure(key, code, LOCK_SECONDS)
            except Deferred as reason:
                say(f"{key}: {reason}")
                waiting.append(key)
            except CommandFailed as failure:
                say(f"{key}: {failure}")
                failed.append(key)
        for key in waiting:
            try:
                self._measure(key, code, math.inf)
            except (CommandFailed, Deferred) as failure:
                say(f"{key}: {failure}")
                failed.append(key)
        self._report(code, failed)
        return failed

    def _measure(self, key: str, code: str, wait: float) -> None:
        """Measure a row, unless that has been done.

        Args:
            key: of the row.
            code: hash of the package.
            wait: seconds for another call that measures it, or a row that it is built on.

        Raises:
            Deferred: another call goes on measuring one of them, or one that it is built on is not measured.
            CommandFailed: a command failed.
            SystemExit: another call measured it with other settings.
        """
        name, seed = self.keys[key]
        run, planned = self._run(name, seed), self.planned[name]
        with ExitStack() as held:
            try:
                for base in planned.built_on:
                    if not self._has(base, seed, self.results()):  # another call may measure it
                        with self._locked(base, seed, wait):
                            pass
                held.enter_context(self._locked(name, seed, wait))
            except ValueError as under_way:
                raise Deferred(str(under_way)) from under_way
            results = self.results()
            self._check(key, results)
            if self._is_measured(key, results):
                return
            for base in planned.built_on:
                if not self._has(base, seed, results):
                    raise Deferred(f"it is built on {base}/{seed}, which is not measured")
            made_of = {"dataset": self.hashes[seed], "flags": planned.flags, "code_sha256": code}
            if planned.run_of is None:
                row = measured_run(self.datasets[seed], run, seed, made_of, self.processes)
            else:
                of_run = results[f"{planned.run_of}/{seed}"]
                measured = self._run(planned.run_of, seed)
                row = measured_language_model(measured, of_run, run, self.processes)
                made_of["code_sha256"] = of_run["code_sha256"]
            self._add(key, row | made_of)

    def _add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write a measured row into results.json, beside those of other calls."""
        planned = self.planned[self.keys[key][0]]
        further = {name: getattr(planned, name) for name in ("tuning_seconds", "encoder", "run_of")}
        added = {key: {**row, **further}}
        with locked(self.output / RESULTS_FILE, wait=WRITING_SECONDS):
            text = json.dumps(self.results() | added, indent=2)
            write_text(self.output / RESULTS_FILE, text + "\n")

    def _report(self, code: str, failed: Collection[str]) -> None:
        """Write and print the table of the rows that were measured on all seeds."""
        results, seeds = self.results(), [*self.datasets]
        measured = {key: name for key, (name, _) in self.keys.items() if self._is_measured(key, results)}
        complete = [name for name in self.planned if all(f"{name}/{seed}" in measured for seed in seeds)]
        old = dict.fromkeys(name for key, name in measured.items() if results[key].get("code_sha256") != code)
        table = self._table(results, complete) + notes(old, failed)
        write_text(self.output / TABLE_FILE, table + "\n")
        about = f"{self.name}, {self.protocol.title}, test events, mean over seeds"
        say(f"\n{about} {', '.join(map(str, seeds))}:\n\n{table}")

    def _table(self, results: Mapping[str, Any], names: Collection[str]) -> str:
        """Table of the systems: means over seeds, peak memory as a maximum."""
        protocol, seeds = self.protocol, [*self.datasets]
        reference, ranked_by, rows = protocol.reference, protocol.compared[0], []
        for name in names:
            measured = [results[f"{name}/{seed}"] for seed in seeds]
            metrics = {
                metric: float(np.mean([row["metrics"][metric] for row in measured]))
                for metric in protocol.metrics
            }
            differences = None
            if name != reference and reference in names:
                differences = mean_differences(self.output, reference, name, seeds, ranked_by)
            seconds = [row["training_cpu_seconds"] for row in measured]
            costs = ["resumed", "resumed"]
            if None not in seconds:
                costs = [f"{np.mean(seconds):.0f}", f"{max(row['peak_mib'] for row in measured):,.0f}"]
            rows.append(SystemRow(name, metrics, differences, costs))
        further = ["training (CPU s)", "peak memory (MiB)"]
        return comparison_table(rows, protocol.metrics, ranked_by, reference, further)


def read_results(output: Path) -> dict[str, Any]:
    """The rows in results.json of a set: `row/seed` -> what was measured.

    Raises:
        SystemExit: the file is damaged.
    """
    return read_object(output / RESULTS_FILE)


def notes(old: Collection[str], failed: Collection[str]) -> str:
    """What is said below a table about rows of other code, and about runs that failed."""
    named = {
        "Measured with other code of the package than the present": old,
        "Failed, so that their rows are left out": failed,
    }
    return "".join(f"\n\n{note}: {', '.join(names)}." for note, names in named.items() if names)
