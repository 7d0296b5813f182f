"""Two commands that write one output, and readers during writes."""

import os
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.digests import differences, everything
from tests.faults.forks import SETTINGS, Child, Ended, run_command
from tests.faults.kill_scenarios import Scenario, World, readable


@dataclass(frozen=True)
class Race:
    """Two commands that write one output.

    Attributes:
        scenario: the commands before, and the output.
        commands: result's name -> command.
        over: whether two of three races begin with an older output.
    """

    scenario: Scenario
    commands: dict[str, list[str]]
    over: bool


def race_of_prepare(world: World) -> Race:
    """Two `prepare` of different tables into one folder."""
    tables = {name: ["--interactions", str(world.inputs / f"{name}.csv")] for name in ("new", "old")}
    commands = {
        name: ["prepare", *flags, "--output", "data", "--split", "none"] for name, flags in tables.items()
    }
    return Race(Scenario("prepare", ["prepare"], ["data"]), commands, over=True)


def race_of_training(world: World) -> Race:
    """Two `pretrain` with different settings into one run folder."""
    common = ["pretrain", "--system", "sasrec", "--dataset", str(world.inputs / "data"), "--output", "run"]
    commands = {seed: [*common, "--seed", seed] for seed in ("1", "2")}
    return Race(Scenario("pretrain", ["pretrain"], ["run"]), commands, over=False)


def races(world: World, race: Race, n: int, seed: int, report: Callable[[str], None]) -> list[str]:
    """Run two commands at once, n times. Faults: neither succeeded, or the output is that of no winner."""
    generator, failed, folder = random.Random(seed), [], world.folder / "race"
    whole = {}
    for name, command in race.commands.items():
        world.begin(race.scenario, folder)
        world.run(command, folder)
        whole[name] = everything(folder)
    for number in range(n):
        world.begin(race.scenario, folder)
        older = [None, *race.commands][number % 3] if race.over else None
        if older:
            world.run(race.commands[older], folder)
        wrong = _race(race, folder, [generator.uniform(0, 0.04) for _ in race.commands], whole)
        if wrong:
            failed.append(
                f"race {number} of {race.scenario.name} (seed {seed}, older: {older}): {'; '.join(wrong)}"
            )
            report(f"FAILED {failed[-1]}")
    return failed


def _race(race: Race, folder: Path, delays: list[float], whole: dict[str, dict[str, str]]) -> list[str]:
    """Faults of a race; `whole`: the files that each command leaves alone."""
    os.chdir(folder)

    def start(delay: float, command: list[str]) -> Child:
        def task() -> None:
            time.sleep(delay)
            run_command(command)

        return Child(task, folder.parent)

    ended = [
        child.wait() for child in [start(*pair) for pair in zip(delays, race.commands.values(), strict=True)]
    ]
    found = everything(folder)
    wrong = [
        f"{who}: {fault}"
        for who, end in zip(race.commands, ended, strict=True)
        for fault in _refused_well(end)
    ]
    succeeded = [name for name, end in zip(race.commands, ended, strict=True) if end.status == 0]
    if not succeeded:
        wrong.append("neither succeeded")
    if found not in [whole[name] for name in succeeded]:
        nearest = min((differences(found, files) for files in whole.values()), key=len)
        wrong.append(f"the output is that of no winner: {', '.join(nearest) or 'it is the older one'}")
    return wrong + [
        f"it does not load: {answer}" for answer in readable(folder, race.scenario) if answer != "ok"
    ]


def _refused_well(ended: Ended) -> list[str]:
    """Faults of a command's end: it must succeed, or refuse in one line that names the cause."""
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    said_well = len(errors) == 1 and re.search(r"process \d+ on |another process|not empty", errors[0])
    if (ended.status == 0 and not errors) or (ended.status == 2 and said_well):
        return []
    return [f"status {ended.status}: {ended.last_line}"]


def dataset_readers(world: World, n: int) -> list[str]:
    """Load a dataset n times while another process keeps replacing it by a different one."""
    folder = world.folder / "replaced"
    folder.mkdir()
    target = folder / "data"

    def made(name: str) -> Any:
        import polars as pl

        from cllm4rec.data.dataset import Dataset

        return Dataset.from_frame(
            pl.read_csv(world.inputs / f"{name}.csv"),
            pl.read_csv(world.inputs / f"{name}-items.csv"),
            split="random",
        )

    def write() -> None:
        datasets = [made("new"), made("old")]
        _write_often(folder, lambda number: datasets[number % 2].save(target))

    def read() -> list[str]:
        from cllm4rec.data.dataset import Dataset

        expected = [made(name).fingerprint for name in ("new", "old")]
        wrong = []
        while not target.exists():
            time.sleep(0.01)
        for number in range(n):
            try:
                dataset = Dataset.load(target)
                found = replace(dataset).fingerprint
            except Exception as error:
                wrong.append(f"load {number}: {type(error).__name__}: {str(error)[:300]}")
                continue
            if found not in expected or found != dataset.hashes.data_sha256:
                wrong.append(f"load {number}: a mixture")
        return wrong

    return _during(world, folder, read, write)


def run_readers(world: World, n: int) -> list[str]:
    """Load the model of a run n times while another process keeps replacing it by a different one."""
    folder = world.folder / "rewritten"
    folder.mkdir()
    scenario = Scenario(
        "",
        [],
        [],
        [["pretrain", "--output", "run", "--system", "ease", "--dataset", "WORLD/data", *SETTINGS["ease"]]],
    )
    shutil.copytree(world.base(scenario), folder, dirs_exist_ok=True)
    run = folder / "run"

    def write() -> None:
        from cllm4rec import models
        from cllm4rec.training.run_description import StageSettings
        from cllm4rec.training.run_folder import RunFolder

        kept = [models.load(run), models.load(run)]
        kept[0]._restore({name: array.copy() for name, array in kept[0]._arrays().items()})
        kept[1]._restore({name: array * 2 for name, array in kept[0]._arrays().items()})
        kept[1].config = replace(kept[0].config, regularization=20.0)
        # as a training does before it saves
        RunFolder(run).begin_stage("pretrain", StageSettings(asdict(kept[0].config)))
        while not (folder / "reading").exists():
            time.sleep(0.01)
        _write_often(folder, lambda number: kept[(number + 1) % 2].save(run / "pretrain"))

    def read() -> list[str]:
        from cllm4rec import models

        first = {name: array.copy() for name, array in models.load(run)._arrays().items()}
        wrong = []
        (folder / "reading").touch()
        for number in range(n):
            try:
                model = models.load(run)
                scale = 2 if asdict(model.config)["regularization"] == 20.0 else 1
                if any((array != first[name] * scale).any() for name, array in model._arrays().items()):
                    wrong.append(f"load {number}: a mixture")
            except Exception as error:
                wrong.append(f"load {number}: {type(error).__name__}: {str(error)[:300]}")
        return wrong

    return _during(world, folder, read, write)


def _write_often(folder: Path, write: Callable[[int], None]) -> None:
    """Call write(0), write(1) and so on, until the readers have enough.

    A pause follows each write, of a random length up to four times that of the write. Without it a slow
    reader may meet a write in each of its 1,000 attempts, and then it gives up.
    """
    generator, number = random.Random(0), 0
    while not (folder / "enough").exists():
        started = time.monotonic()
        write(number)
        number += 1
        time.sleep(generator.uniform(0, 4) * (time.monotonic() - started))


def _during(
    world: World, folder: Path, read: Callable[[], list[str]], write: Callable[[], None]
) -> list[str]:
    """Faults that a reader saw during writes."""
    os.chdir(world.folder)
    writer, reader = Child(write, world.folder), Child(read, world.folder)
    seen = reader.wait()
    (folder / "enough").touch()
    wrote = writer.wait()
    wrong = list(seen.result or [])
    wrong += [f"the reader ended with status {seen.status}: {seen.last_line}"] if seen.status else []
    return wrong + (
        [f"the writer ended with status {wrote.status}: {wrote.last_line}"] if wrote.status else []
    )
