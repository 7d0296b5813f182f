"""Kills the commands at every call that changes the disk, and checks the files left. Also races and readers.

    python -m tests.faults.kills                          # every point, races, readers: `make kills`
    python -m tests.faults.kills --only 'pretrain ease'   # the scenarios whose name contains this
    python -m tests.faults.kills --sample 20 --seed 3     # a sample of the points, drawn by a seed
    python -m tests.faults.kills --only 'prepare, new' --point 7 [--second 4]   # as printed by a failure

After each kill, the output is the older one or the new one, whole; readers give either, or one error line.
Then the same command, with --resume where it trains, must leave exactly the files of an uninterrupted run.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.digests import differences, everything
from tests.faults.disk_events import DiskEvents
from tests.faults.forks import Child, Ended, import_everything, run_command
from tests.faults.kill_races import dataset_readers, race_of_prepare, race_of_training, races, run_readers
from tests.faults.kill_scenarios import (
    Reference,
    Scenario,
    World,
    output_states,
    readable,
    reference,
    scenarios,
)

Row = tuple[str, int, int]  # of the table: what was tried, trials, failures


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def examine(folder: Path, world: World, scenario: Scenario, known: Reference) -> list[str]:
    """Faults after a kill."""
    wrong = []
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True)  # a reader may repair the folder
    for answer in readable(copy, scenario):
        if answer.startswith("error: ") and scenario.older | (scenario.command[0] == "finetune"):
            wrong.append(f"the older output cannot be read: {answer}")
        elif not answer.startswith(("ok", "error: ")) or "\n" in answer:
            wrong.append(answer)
    try:
        for name, state in output_states(copy, scenario).items():
            if state not in known.outputs.get(name, []) and not (state is None and not scenario.older):
                wrong.append(f"{name} is neither the old nor the new one")
    except Exception as error:
        wrong.append(f"an output is damaged: {error}")
    wrong += [
        f"{name}, a file of the user, is missing" for name in missing_users_files(folder, world, scenario)
    ]
    return wrong


def missing_users_files(folder: Path, world: World, scenario: Scenario) -> list[str]:
    names = [f".{name}.{end}" for name in scenario.outputs for end in ("new", "old", "tmp")]
    names += [f"{name}.bak" for name in scenario.outputs]
    return [name for name in names if world.users_own_files and not (folder / name / "notes.txt").is_file()]


def run_again(world: World, scenario: Scenario, folder: Path, again: bool, point: int | None = None) -> Ended:
    """Run the command of a scenario, killed at a point if it gets there.

    Args:
        again: add the flags that resume it. If only an older training exists, they refer to that one, whose
            settings differ. That refusal is right, and the command is run without them.
    """
    command = scenario.filled(scenario.command, world.inputs)
    os.chdir(folder)

    def run(command: list[str]) -> Ended:
        def watched() -> None:
            disk = DiskEvents(folder, kill_at=point)
            if point is not None:
                disk.watch()
            run_command(command)
            disk.finish()

        return Child(watched, folder.parent).wait()

    if not again:
        return run(command)
    untouched = scenario.older and output_states(folder, scenario) == output_states(
        world.base(scenario), scenario
    )
    ended = run([*command, *scenario.again])
    return run(command) if ended.status == 2 and untouched else ended


def trial(world: World, scenario: Scenario, point: int, second: int | None, folder: Path) -> list[str]:
    """Kill a command at a point, perhaps the next try too, then let it end. Returns the faults."""
    known = reference(world, scenario)
    world.begin(scenario, folder)
    ended = run_again(world, scenario, folder, again=False, point=point)
    if ended.status != -signal.SIGKILL:
        return [f"was not killed: status {ended.status}, {ended.last_line}"]
    wrong = examine(folder, world, scenario, known)
    if second is not None:
        ended = run_again(world, scenario, folder, again=True, point=second)
        if ended.status not in (0, -signal.SIGKILL):
            return [*wrong, f"the second try ended with status {ended.status}: {ended.last_line}"]
        wrong += [f"after the second kill: {fault}" for fault in examine(folder, world, scenario, known)]
    ended = run_again(world, scenario, folder, again=True)
    if ended.status:
        return [*wrong, f"the same command again ended with status {ended.status}: {ended.last_line}"]
    return wrong + differences(everything(folder), known.files)


@dataclass(frozen=True)
class Trial:
    """A scenario, its point, and the point of the second kill, if there is one."""

    scenario: Scenario
    point: int
    second: int | None

    def flags(self, next_event: str) -> str:
        second = "" if self.second is None else f" --second {self.second}"
        return f"--only '{self.scenario.name}' --point {self.point}{second}    # before: {next_event}"


def all_trials(world: World, chosen: list[Scenario], seed: int) -> list[Trial]:
    """Every point of the scenarios; a fifth of the trials are killed twice."""
    trials = []
    for scenario in chosen:
        points = reference(world, scenario).points
        generator = random.Random(f"{seed} {scenario.name}")
        for point in range(len(points)):
            second = generator.randrange(len(points)) if generator.random() < 0.2 else None
            trials.append(Trial(scenario, point, second))
    return trials


def sampled(trials: list[Trial], n: int, seed: int) -> list[Trial]:
    """A sample of the trials: of each scenario its share, and at least one."""
    generator = random.Random(seed)
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.scenario.name, []).append(trial)
    shares = {name: max(1, round(n * len(group) / len(trials))) for name, group in by_name.items()}
    while sum(shares.values()) > n and max(shares.values()) > 1:
        shares[max(shares, key=lambda name: shares[name])] -= 1
    chosen = [generator.sample(group, min(shares[name], len(group))) for name, group in by_name.items()]
    return [trial for group in chosen for trial in group]


def run_trials(
    world: World, trials: list[Trial], jobs: int, report: Callable[[str], None] = say
) -> dict[str, list[str]]:
    """Run trials in some processes at once.

    Returns:
        The name of each scenario -> a line for each of its trials that failed.
    """
    failures: dict[str, list[str]] = {trial.scenario.name: [] for trial in trials}
    began, done = time.monotonic(), 0
    read, write = os.pipe()
    workers = []
    for job in range(jobs):
        if not (pid := os.fork()):
            _work(world, trials[job::jobs], jobs, job, write)
        workers.append(pid)
    os.close(write)
    with os.fdopen(read) as answers:
        for line in answers:
            number, wrong = json.loads(line)
            done += 1
            at = trials[number].flags(reference(world, trials[number].scenario).points[trials[number].point])
            if wrong:
                failures[trials[number].scenario.name].append(f"{at}: {'; '.join(wrong)}")
                report(f"FAILED {at}\n    " + "\n    ".join(wrong))
            if done % 50 == 0:
                report(f"{done} of {len(trials)} kills, {time.monotonic() - began:.0f} s")
    if any([os.waitpid(pid, 0)[1] for pid in workers]) or done < len(trials):
        failures["the harness"] = [f"a worker ended early: {done} of {len(trials)} trials were run"]
    return failures


def _work(world: World, trials: list[Trial], jobs: int, job: int, answers: int) -> None:
    """A worker: its trials, a line of JSON each."""
    status = 1
    try:
        folder = world.folder / f"job-{job}" / "trial"
        folder.parent.mkdir()
        for index, chosen in enumerate(trials):
            try:
                wrong = trial(world, chosen.scenario, chosen.point, chosen.second, folder)
            except Exception as error:
                wrong = [f"the harness failed: {type(error).__name__}: {error}"]
            os.write(answers, (json.dumps([index * jobs + job, wrong]) + "\n").encode())
        status = 0
    finally:
        os._exit(status)


def table(rows: list[Row]) -> str:
    """Scenario, points, passed, failed."""
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'command, system':<{width}}  {'points':>7} {'passed':>7} {'failed':>7}"]
    lines += [f"{name:<{width}}  {n:>7} {n - failed:>7} {failed:>7}" for name, n, failed in rows]
    n, failed = sum(row[1] for row in rows), sum(row[2] for row in rows)
    return "\n".join([*lines, f"{'all':<{width}}  {n:>7} {n - failed:>7} {failed:>7}"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill the commands at every call that changes the disk.")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--sample", type=int, help="so many trials, drawn by the seed; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the second kills and the races")
    parser.add_argument("--point", type=int, help="this point of the one scenario")
    parser.add_argument("--second", type=int, help="kill the next try at this point too")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--races", type=int, default=80, help="races of two prepare, and a quarter as many of two pretrain"
    )
    parser.add_argument(
        "--loads", type=int, default=3000, help="loads of a dataset and of a run during writes"
    )
    parser.add_argument("--keep", help="folder to work in, which is kept")
    parser.add_argument(
        "--without-users-files", action="store_true", help="no files of the user next to the outputs"
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    import_everything()
    memory = Path("/dev/shm")  # where writing to the disk takes no time
    there = memory if memory.is_dir() and shutil.disk_usage(memory).free > 2**28 else None
    folder = Path(options.keep or tempfile.mkdtemp(prefix="kills-", dir=there)).resolve()
    try:
        return check(options, folder)
    finally:
        os.chdir("/")
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def check(options: argparse.Namespace, folder: Path) -> int:
    """Run what was asked for and print the account. 0 if nothing failed."""
    world = World(folder / "kills", not options.without_users_files)
    rows = [
        *kill_rows(world, options),
        *race_rows(world, options.races, options.seed),
        *reader_rows(world, options.loads),
    ]
    say(table(rows))
    return int(any(failed for _, _, failed in rows))


def kill_rows(world: World, options: argparse.Namespace) -> list[Row]:
    """The kills of the chosen scenarios."""
    rows, chosen = [], []
    for scenario in scenarios():
        if options.only in scenario.name:
            try:
                unseen = reference(world, scenario).unannounced
                chosen.append(scenario)
            except RuntimeError as error:
                say(f"FAILED '{scenario.name}' without a kill: {error}")
                unseen = ["all of it"]
            rows += [(f"{scenario.name}: not watched: {', '.join(unseen)}", 1, 1)] if unseen else []
    if options.point is not None:
        chosen = [scenario for scenario in chosen if scenario.name == options.only] or chosen[:1]
        trials = [Trial(chosen[0], options.point, options.second)]
    else:
        trials = all_trials(world, chosen, options.seed)
        say(f"{len(trials)} kill points in {len(chosen)} scenarios")
        trials = trials if options.sample is None else sampled(trials, options.sample, options.seed)
    failures = run_trials(world, trials, min(options.jobs, len(trials))) if trials else {}
    for name, failed in failures.items():
        rows.append((name, sum(trial.scenario.name == name for trial in trials), len(failed)))
    return rows


def race_rows(world: World, n_races: int, seed: int) -> Iterator[Row]:
    """The races."""
    for race, n in ((race_of_prepare(world), n_races), (race_of_training(world), n_races // 4)):
        if n:
            yield f"races of two {race.scenario.name}", n, len(races(world, race, n, seed, say))


def reader_rows(world: World, n_loads: int) -> Iterator[Row]:
    """The readers during writes."""
    for what, read in (("datasets", dataset_readers), ("runs", run_readers)):
        if n_loads:
            wrong = read(world, n_loads)
            for line in wrong[:3]:
                say(f"FAILED loads of {what} during writes: {line}")
            yield f"loads of {what} during writes", n_loads, len(wrong)


if __name__ == "__main__":
    sys.exit(main())
