"""What is killed: every command with every system, on a new output and over an older one."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from digests import content, everything, hidden, stage_digest
from disk_events import DiskEvents
from forks import SETTINGS, Child, run_command

Result = TypeVar("Result")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and what was there before.

    Attributes:
        name: command, system, and whether an older output is there.
        words: the command; it runs in a folder of its own, WORLD stands for that of the inputs.
        outputs: what it writes: dataset folders, run folders or files.
        before: commands that were run before.
        again: what is added to the command to run it after a kill.
    """

    name: str
    words: list[str]
    outputs: list[str]
    before: list[list[str]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    @property
    def older(self) -> bool:
        return "older" in self.name

    def typed(self, words: list[str], world: Path) -> list[str]:
        return [word.replace("WORLD", str(world)) for word in words]


def scenarios() -> Iterator[Scenario]:
    """Every command with every system, on a new output and over an older one."""

    def prepare(world: str) -> list[str]:
        tables = ["--interactions", f"WORLD/{world}.csv", "--items", f"WORLD/{world}-items.csv"]
        return ["prepare", *tables, "--output", "data"]

    def train(stage: str, system: str, *further: str) -> list[str]:
        where = ["--output", "run", "--system", system, "--dataset", "WORLD/data"] if stage == "pretrain" else ["--run", "run"]
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
            yield Scenario(f"finetune {system}, over an older one", finetune, ["run"], [*trained, older], ["--resume"])
            trained = [pretrain, finetune]
        evaluate = ["evaluate", "--run", "run", "--json", "result.json", "--per-user", "users.csv"]
        older = [*evaluate, "--split", "validation"]
        yield Scenario(f"evaluate {system}, new", evaluate, ["result.json", "users.csv"], trained)
        yield Scenario(f"evaluate {system}, over older ones", evaluate, ["result.json", "users.csv"], [*trained, older])
        for name in ("lists.parquet", "lists.csv", "lists.jsonl", "parts.parquet"):
            recommend = ["recommend", "--run", "run", "--all", "--k", "5", "--output", name]
            older = [*recommend[:-3], "3", *recommend[-2:]]
            if name == "lists.parquet" or system == "ease":
                yield Scenario(f"recommend {system} {name}, new", recommend, [name], trained)
                yield Scenario(f"recommend {system} {name}, over an older one", recommend, [name], [*trained, older])


class World:
    """The folder of the inputs, and the scenarios as they are before their command and after it."""

    def __init__(self, folder: Path, users_own_files: bool = True) -> None:
        self.folder, self.users_own_files = folder, users_own_files
        self.inputs = folder / "world"
        self.references: dict[str, Reference] = {}
        self.bases: dict[str, Path] = {}
        self.inputs.mkdir(parents=True)
        self.task(self._write_inputs)
        tables = ["--interactions", str(self.inputs / "new.csv"), "--items", str(self.inputs / "new-items.csv")]
        self.command(["prepare", *tables, "--output", str(self.inputs / "data")], self.inputs)

    def _write_inputs(self) -> None:
        from cllm4rec.data.synthetic import taste_world

        for seed, name in enumerate(("new", "old")):
            made = taste_world(seed, n_users=12, n_items=18, n_events=7)
            made.events.write_csv(self.inputs / f"{name}.csv")
            made.items.write_csv(self.inputs / f"{name}-items.csv")

    def task(self, task: Callable[[], Result]) -> Result:
        """The result of a task that runs in a process of its own.

        Raises:
            RuntimeError: it failed.
        """
        ended = Child(task, self.folder).wait()
        if ended.status:
            raise RuntimeError(f"ended with status {ended.status}: {ended.said}")
        return ended.result

    def command(self, words: list[str], folder: Path) -> None:
        """Run a command that has to succeed."""
        os.chdir(folder)
        self.task(lambda: run_command(words))

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
                self.command(scenario.typed(scenario.before[-1], self.inputs), folder)
            self.bases[key] = folder
        return self.bases[key]

    def begin(self, scenario: Scenario, folder: Path) -> None:
        """The folder of a trial, with files of the user that have the names a writer might think of."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base(scenario), folder)
        for name in scenario.outputs if self.users_own_files else ():
            for own in (f".{name}.new", f".{name}.old", f"{name}.bak", f".{name}.tmp"):
                (folder / own).mkdir()
                (folder / own / "mine.txt").write_text("mine\n")


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its kill points, the files after it, what each output held before it and at times during it."""

    points: list[str]
    files: dict[str, str]
    outputs: dict[str, list[Any]]
    unannounced: list[str]


def output_states(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """What each output holds: None where it is absent, a digest of its files, or of each stage's folder."""
    found: dict[str, Any] = {}
    for name in scenario.outputs:
        path = folder / name
        if scenario.words[0] in ("pretrain", "finetune"):
            stages = sorted(one.parent for one in path.rglob("model.json") if one.parent.name != "sequential")
            shown = [one for one in stages if not hidden(one.relative_to(path))]
            found |= {f"{name}/{one.relative_to(path)}": stage_digest(one) for one in shown}
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
            except Exception:  # noqa: S110 - a stage that is being written without an intermediate name: no whole state
                pass
            disk._watching = True

        disk = DiskEvents(folder, at_event=note)
        disk.watch()
        note()
        run_command(scenario.typed(scenario.words, world.inputs))
        note()
        disk.finish()
        return {"points": disk.points, "states": states, "made": sorted(disk.made)}

    told = world.task(watched)
    files = everything(folder)
    made = [name.removeprefix(str(folder.resolve()) + os.sep) for name in told["made"]]
    new = [name for name, digest in files.items() if digest != before.get(name) and digest != "folder"]
    unannounced = [name for name in new if not any(name == one or name.startswith(one + os.sep) for one in made)]
    world.references[scenario.name] = Reference(told["points"], files, told["states"], unannounced)
    return world.references[scenario.name]


def readable(folder: Path, scenario: Scenario) -> list[str]:
    """What the package's own readers say of the outputs: "ok", or an error."""

    def read() -> list[str]:
        from cllm4rec import models
        from cllm4rec.data.dataset import Dataset

        answers = []
        for name in scenario.outputs:
            try:
                if scenario.words[0] == "prepare":
                    dataset = Dataset.load(folder / name)
                    same = dataset.about["data_sha256"] == dataset.fingerprint
                    answers.append("ok" if same else "a mixture: data_sha256 is not that of the data")
                elif scenario.words[0] in ("pretrain", "finetune"):
                    models.load(folder / name)
                    answers.append("ok")
            except (ValueError, OSError) as error:
                answers.append(f"error: {error}")
        return answers

    ended = Child(read, folder.parent).wait()
    return [f"a traceback: {ended.last_line}"] if ended.status else ended.result
