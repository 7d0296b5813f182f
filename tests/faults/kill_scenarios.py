"""Scenarios of the kills: every command with every system, without and with an older output."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.digests import content, everything, hidden, stage_digest
from tests.faults.disk_events import DiskEvents
from tests.faults.forks import SETTINGS, Child, run_command

Result = TypeVar("Result")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and the commands before it.

    Attributes:
        name: command, system, and whether an older output exists.
        command: the command killed; WORLD is replaced by the folder of the inputs.
        outputs: dataset folders, run folders or files that it writes.
        before: commands run before it.
        again: flags added when it is run again after a kill.
    """

    name: str
    command: list[str]
    outputs: list[str]
    before: list[list[str]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    @property
    def older(self) -> bool:
        return "older" in self.name

    def filled(self, command: list[str], inputs: Path) -> list[str]:
        """A command with the folder of the inputs filled in."""
        return [argument.replace("WORLD", str(inputs)) for argument in command]


def scenarios() -> Iterator[Scenario]:
    """Every command with every system, without and with an older output."""

    def prepare(source: str) -> list[str]:
        tables = ["--interactions", f"WORLD/{source}.csv", "--items", f"WORLD/{source}-items.csv"]
        return ["prepare", *tables, "--output", "data"]

    def train(stage: str, system: str, *further: str) -> list[str]:
        where = (
            ["--output", "run", "--system", system, "--dataset", "WORLD/data"]
            if stage == "pretrain"
            else ["--run", "run"]
        )
        return [stage, *where, *(SETTINGS[system] if stage in ("pretrain", "finetune") else []), *further]

    yield Scenario("prepare, new", prepare("new"), ["data"])
    yield Scenario("prepare, over an older one", prepare("new"), ["data"], [prepare("old")])
    for system in SETTINGS:
        pretrain = train("pretrain", system)
        yield Scenario(f"pretrain {system}, new", pretrain, ["run"], again=["--resume"])
        trained = [pretrain]
        if system != "ease":
            finetune = train("finetune", system)
            yield Scenario(f"finetune {system}, new", finetune, ["run"], trained, ["--resume"])
            older = train("finetune", system, "--seed", "7", "--learning-rate", "0.01")
            yield Scenario(
                f"finetune {system}, over an older one", finetune, ["run"], [*trained, older], ["--resume"]
            )
            trained = [pretrain, finetune]
        evaluate = ["evaluate", "--run", "run", "--json", "result.json", "--per-user", "users.csv"]
        older = [*evaluate, "--split", "validation"]
        yield Scenario(f"evaluate {system}, new", evaluate, ["result.json", "users.csv"], trained)
        yield Scenario(
            f"evaluate {system}, over older ones", evaluate, ["result.json", "users.csv"], [*trained, older]
        )
        for name in ("lists.parquet", "lists.csv", "lists.jsonl", "parts.parquet"):
            recommend = ["recommend", "--run", "run", "--all", "--k", "5", "--output", name]
            older = [*recommend[:-3], "3", *recommend[-2:]]
            if name == "lists.parquet" or system == "ease":
                yield Scenario(f"recommend {system} {name}, new", recommend, [name], trained)
                yield Scenario(
                    f"recommend {system} {name}, over an older one", recommend, [name], [*trained, older]
                )


class World:
    """The folder of the inputs, and the state of each scenario before its command."""

    def __init__(self, folder: Path, users_own_files: bool = True) -> None:
        self.folder, self.users_own_files = folder, users_own_files
        self.inputs = folder / "world"
        self.references: dict[str, Reference] = {}
        self.bases: dict[str, Path] = {}
        self.inputs.mkdir(parents=True)
        self.task(self._write_inputs)
        tables = [
            "--interactions",
            str(self.inputs / "new.csv"),
            "--items",
            str(self.inputs / "new-items.csv"),
        ]
        self.run(["prepare", *tables, "--output", str(self.inputs / "data")], self.inputs)

    def _write_inputs(self) -> None:
        from cllm4rec.data.synthetic import taste_world

        for seed, name in enumerate(("new", "old")):
            made = taste_world(seed, n_users=12, n_items=18, n_events=7)
            made.events.write_csv(self.inputs / f"{name}.csv")
            made.items.write_csv(self.inputs / f"{name}-items.csv")

    def task(self, task: Callable[[], Result]) -> Result:
        """The result of a task, run in a fork.

        Raises:
            RuntimeError: it failed.
        """
        ended = Child(task, self.folder).wait()
        if ended.status:
            raise RuntimeError(f"ended with status {ended.status}: {ended.said}")
        return ended.result

    def run(self, command: list[str], folder: Path) -> None:
        """Run a command that has to succeed."""
        os.chdir(folder)
        self.task(lambda: run_command(command))

    def base(self, scenario: Scenario) -> Path:
        """A folder as it is before the command; scenarios share the commands that they begin with."""
        key = json.dumps(scenario.before)
        if key not in self.bases:
            known = self.bases.get(json.dumps(scenario.before[:-1])) if scenario.before else None
            if scenario.before and known is None:
                known = self.base(replace(scenario, before=scenario.before[:-1]))
            folder = self.folder / f"base-{len(self.bases)}"
            shutil.copytree(known, folder) if known else folder.mkdir()
            if scenario.before:
                self.run(scenario.filled(scenario.before[-1], self.inputs), folder)
            self.bases[key] = folder
        return self.bases[key]

    def begin(self, scenario: Scenario, folder: Path) -> None:
        """The folder of a trial, with a user's files under names that a writer might choose."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base(scenario), folder)
        for name in scenario.outputs if self.users_own_files else ():
            for similar in (f".{name}.new", f".{name}.old", f"{name}.bak", f".{name}.tmp"):
                (folder / similar).mkdir()
                (folder / similar / "notes.txt").write_text("notes\n")


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: kill points, files after it, states of each output before and during it."""

    points: list[str]
    files: dict[str, str]
    outputs: dict[str, list[Any]]
    unannounced: list[str]


def output_states(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """State of each output: None if absent, else digests of its files or of each stage folder."""
    found: dict[str, Any] = {}
    for name in scenario.outputs:
        path = folder / name
        if scenario.command[0] in ("pretrain", "finetune"):
            stages = sorted(
                file.parent for file in path.rglob("model.json") if file.parent.name != "sequential"
            )
            shown = [stage for stage in stages if not hidden(stage.relative_to(path))]
            found |= {f"{name}/{stage.relative_to(path)}": stage_digest(stage) for stage in shown}
        else:
            found[name] = everything(path) if path.is_dir() else content(path) if path.is_file() else None
    return found


def reference(world: World, scenario: Scenario) -> Reference:
    """Run a scenario without a kill."""
    if scenario.name in world.references:
        return world.references[scenario.name]
    folder = world.folder / "trial"
    world.begin(scenario, folder)
    before = everything(folder)
    os.chdir(folder)

    def watched() -> dict[str, Any]:
        states: dict[str, list[Any]] = {}

        def note() -> None:
            disk._watching = False
            try:
                for name, state in output_states(folder, scenario).items():
                    if state not in states.setdefault(name, []):
                        states[name].append(state)
            except Exception:  # noqa: S110 - a stage being written under its final name has no whole state
                pass
            disk._watching = True

        disk = DiskEvents(folder, at_event=note)
        disk.watch()
        note()
        run_command(scenario.filled(scenario.command, world.inputs))
        note()
        disk.finish()
        return {"points": disk.points, "states": states, "made": sorted(disk.made)}

    told = world.task(watched)
    files = everything(folder)
    made = [name.removeprefix(str(folder.resolve()) + os.sep) for name in told["made"]]
    new = [name for name, digest in files.items() if digest != before.get(name) and digest != "folder"]
    unannounced = [
        name for name in new if not any(name == path or name.startswith(path + os.sep) for path in made)
    ]
    world.references[scenario.name] = Reference(told["points"], files, told["states"], unannounced)
    return world.references[scenario.name]


def readable(folder: Path, scenario: Scenario) -> list[str]:
    """Answers of the package's readers about the outputs: "ok", or an error."""

    def read() -> list[str]:
        from cllm4rec import models
        from cllm4rec.data.dataset import Dataset

        answers = []
        for name in scenario.outputs:
            try:
                if scenario.command[0] == "prepare":
                    dataset = Dataset.load(folder / name)
                    same = dataset.hashes.data_sha256 == dataset.fingerprint
                    answers.append("ok" if same else "a mixture: data_sha256 is not that of the data")
                elif scenario.command[0] in ("pretrain", "finetune"):
                    models.load(folder / name)
                    answers.append("ok")
            except (ValueError, OSError) as error:
                answers.append(f"error: {error}")
        return answers

    ended = Child(read, folder.parent).wait()
    return [f"a traceback: {ended.last_line}"] if ended.status else ended.result
