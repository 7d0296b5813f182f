"""Kills the commands at every call that changes the disk, and checks what is left. Also races and readers beside a writer.

    python tests/kills.py                          # every point, the races and the readers: `make kills`
    python tests/kills.py --only 'pretrain ease'   # the scenarios whose name contains this
    python tests/kills.py --sample 20 --seed 3     # some points, drawn by a seed
    python tests/kills.py --only 'prepare, new' --point 7 [--second 4] [--keep FOLDER]    # one trial again, as a failure prints it

One process imports the package and never runs it. Each command runs in a fork of it, so that a trial costs no import.
(Polars starts its threads when it is first used, and threads do not survive a fork: hence the parent leaves it alone.)

After each kill: an older output is there whole, or the new one; readers give one of the two or one error line. Then the
same command, with --resume where it trains, has to succeed and to leave exactly the files of an uninterrupted run.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from disk_events import DiskEvents  # noqa: E402

SECONDS = 120  # after which a process counts as hanging
CLOCK = re.compile(r"seconds$|_per_second$")  # keys of JSON whose values a clock gives
COMMANDS = ("prepare", "pretrain", "finetune", "evaluate", "recommend")
SETTINGS = {  # flags that make a run quick
    "cllm4rec": ["--epochs", "2", "--batch-size", "6", "--content-warmup", "0", "--learning-rate", "0.002"],
    "rsllm": ["--epochs", "2", "--batch-size", "6", "--learning-rate", "0.002"],
    "ease": ["--regularization", "10"],
}
Result = TypeVar("Result")


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (minus a signal's number), what it printed, what its task returned."""

    status: int
    said: str
    result: Any = None

    @property
    def last_line(self) -> str:
        return (self.said.strip().splitlines() or ["(nothing printed)"])[-1]


class Child:
    """A task in a fork of this process."""

    def __init__(self, task: Callable[[], Any], folder: Path) -> None:
        self.log, self.answer = (tempfile.TemporaryFile(dir=folder) for _ in range(2))
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._work(task)

    def _work(self, task: Callable[[], Any]) -> None:
        status = 1
        try:
            signal.alarm(SECONDS)
            os.dup2(self.log.fileno(), 1)
            os.dup2(self.log.fileno(), 2)
            result = task()
            self.answer.write(json.dumps(result).encode())
            self.answer.flush()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self) -> Ended:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for file in (self.log, self.answer):
            file.seek(0)
        said, answer = self.log.read().decode(errors="replace"), self.answer.read()
        return Ended(status, said, json.loads(answer) if answer else None)


def import_everything() -> None:
    """Import what the commands import, before any of it runs, and make the models small."""
    import torch

    torch.set_num_threads(1)
    for name in COMMANDS:
        importlib.import_module(f"cllm4rec.{name}")
    for name in ("stages", "data.synthetic", "models.cllm4rec", "models.rsllm", "models.ease", "models.sasrec"):
        importlib.import_module(f"cllm4rec.{name}")
    from cllm4rec.models import configs

    configs.BUILT_IN["tiny"] = (1, 32)
    stages = configs.SequentialConfig.training
    stages["pretrain"] = replace(stages["pretrain"], epochs=2, validate_every=1)


def run_command(words: Sequence[str]) -> None:
    """A command as it is typed, in this process."""
    import cllm4rec.cli

    sys.argv = list(words)
    module = importlib.import_module(f"cllm4rec.{words[0]}")
    if words[0] == "recommend" and "parts.parquet" in words:  # the writer of parts, as under a launcher
        module.n_launched = lambda: 2
    cllm4rec.cli.run(module.main)


# ---------------------------------------------------------------------------------------------------- what is on the disk


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def without_clock(value: Any) -> Any:
    """JSON without what a clock says."""
    if isinstance(value, dict):
        return {name: without_clock(one) for name, one in value.items() if not CLOCK.search(name)}
    return [without_clock(one) for one in value] if isinstance(value, list) else value


def tensors_sha256(path: Path) -> str:
    """SHA-256 over names, types and values of the tensors of a file."""
    from safetensors.numpy import load_file

    arrays = sorted(load_file(path).items())
    return sha256(b"".join(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes() for name, array in arrays))


def content(path: Path) -> str:
    """A digest of what a file says, without times."""
    if path.suffix == ".safetensors":
        return tensors_sha256(path)
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = [data] if path.suffix == ".json" else data.splitlines()
        clockless = [without_clock(json.loads(line)) for line in lines]
        if path.name == "manifest.json":  # the hash of a file that holds times is no promise
            clockless = [re.sub(r'("[^"]*metrics[^}]*})', "", json.dumps(one)) for one in clockless]
        data = json.dumps(clockless).encode()
    return sha256(data)


def everything(folder: Path) -> dict[str, str]:
    """Path below the folder -> digest of the content; folders too, hidden files too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = "folder" if path.is_dir() and not path.is_symlink() else content(path)
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return [
        *(f"{name} is left over" for name in found.keys() - expected.keys()),
        *(f"{name} is missing" for name in expected.keys() - found.keys()),
        *(f"{name} differs" for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name]),
    ]


def stage_digest(folder: Path) -> list[str]:
    """What a stage's folder holds: weights, and everything that describes them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not hidden(path.relative_to(folder))]
    described = [f"{path.relative_to(folder)} {content(path)}" for path in files if path.suffix != ".safetensors"]
    return [sha256("".join(described).encode()), *(content(path) for path in files if path.suffix == ".safetensors")]


def hidden(path: Path) -> bool:
    """Whether a path is below a name with a dot, as files are that are being written."""
    return any(part.startswith(".") for part in path.parts)


# ------------------------------------------------------------------------------------------------------------- scenarios


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


# ---------------------------------------------------------------------------------------------------------------- trials


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


def examine(folder: Path, world: World, scenario: Scenario, known: Reference) -> list[str]:
    """What is wrong after a kill."""
    wrong = []
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True)  # a reader may mend what it finds
    for answer in readable(copy, scenario):
        if answer.startswith("error: ") and scenario.older | (scenario.words[0] == "finetune"):
            wrong.append(f"the older output cannot be read: {answer}")
        elif not answer.startswith(("ok", "error: ")) or "\n" in answer:
            wrong.append(answer)
    try:
        for name, state in output_states(copy, scenario).items():
            if state not in known.outputs.get(name, []) and not (state is None and not scenario.older):
                wrong.append(f"{name} is neither the old nor the new one")
    except Exception as error:
        wrong.append(f"an output is damaged: {error}")
    wrong += [f"{name}, a file of the user, is gone" for name in users_files_gone(folder, world, scenario)]
    return wrong


def users_files_gone(folder: Path, world: World, scenario: Scenario) -> list[str]:
    names = [f".{name}.{end}" for name in scenario.outputs for end in ("new", "old", "tmp")]
    names += [f"{name}.bak" for name in scenario.outputs]
    return [name for name in names if world.users_own_files and not (folder / name / "mine.txt").is_file()]


def run_again(world: World, scenario: Scenario, folder: Path, again: bool, point: int | None = None) -> Ended:
    """Run the command of a scenario, killed at a point if it comes to it.

    Args:
        again: with the flags that resume it. Where an older training is all that there is, they mean that one, and its
            settings differ: such a refusal is right, and the command is run without them.
    """
    words = scenario.typed(scenario.words, world.inputs)
    os.chdir(folder)

    def run(words: list[str]) -> Ended:
        def watched() -> None:
            disk = DiskEvents(folder, kill_at=point)
            if point is not None:
                disk.watch()
            run_command(words)
            disk.finish()

        return Child(watched, folder.parent).wait()

    if not again:
        return run(words)
    untouched = scenario.older and output_states(folder, scenario) == output_states(world.base(scenario), scenario)
    ended = run([*words, *scenario.again])
    return run(words) if ended.status == 2 and untouched else ended


def trial(world: World, scenario: Scenario, point: int, second: int | None, folder: Path) -> list[str]:
    """Kill a command at a point, maybe kill the next try too, then let it end. What went wrong."""
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
        wrong += [f"after the second kill: {one}" for one in examine(folder, world, scenario, known)]
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

    def typed(self, at: str) -> str:
        second = "" if self.second is None else f" --second {self.second}"
        return f"--only '{self.scenario.name}' --point {self.point}{second}    # before: {at}"


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
    """Some of the trials, as many of each scenario as its share of them, and at least one."""
    generator = random.Random(seed)
    by_name: dict[str, list[Trial]] = {}
    for one in trials:
        by_name.setdefault(one.scenario.name, []).append(one)
    shares = {name: max(1, round(n * len(own) / len(trials))) for name, own in by_name.items()}
    while sum(shares.values()) > n and max(shares.values()) > 1:
        shares[max(shares, key=lambda name: shares[name])] -= 1
    return [one for name, own in by_name.items() for one in generator.sample(own, min(shares[name], len(own)))]


def run_trials(world: World, trials: list[Trial], jobs: int, report: Callable[[str], None] = say) -> dict[str, list[str]]:
    """Run trials in some processes at once.

    Returns:
        The name of each scenario -> a line for each of its trials that failed.
    """
    failures: dict[str, list[str]] = {one.scenario.name: [] for one in trials}
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
            at = trials[number].typed(reference(world, trials[number].scenario).points[trials[number].point])
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
        for place, one in enumerate(trials):
            try:
                wrong = trial(world, one.scenario, one.point, one.second, folder)
            except Exception as error:
                wrong = [f"the harness failed: {type(error).__name__}: {error}"]
            os.write(answers, (json.dumps([place * jobs + job, wrong]) + "\n").encode())
        status = 0
    finally:
        os._exit(status)


# --------------------------------------------------------------------------------------------------- races and readers


def races(world: World, n: int, seed: int, report: Callable[[str], None] = say) -> list[str]:
    """Two `prepare` of different tables into one output at once, over an older dataset in half of the races."""
    generator, failed = random.Random(seed), []
    base, folder = Scenario("", [], ["data"]), world.folder / "race"
    prepares = {
        name: ["prepare", "--interactions", str(world.inputs / f"{name}.csv"), "--output", "data", "--split", split]
        for name, split in (("new", "random"), ("old", "leave-last-out"))
    }
    whole = {}
    for name, words in prepares.items():
        world.begin(base, folder)
        world.command(words, folder)
        whole[name] = everything(folder)
    for number in range(n):
        world.begin(base, folder)
        older = [None, "new", "old"][number % 3]
        if older:
            world.command(prepares[older], folder)
        delays = [generator.uniform(0, 0.04) for _ in prepares]
        os.chdir(folder)

        def start(delay: float, words: list[str]) -> Child:
            return Child(lambda: (time.sleep(delay), run_command(words))[0], world.folder)

        ended = [child.wait() for child in [start(*pair) for pair in zip(delays, prepares.values(), strict=True)]]
        found = everything(folder)
        wrong = [f"{who}: {one}" for who, end in zip(prepares, ended, strict=True) for one in _race_faults(end)]
        succeeded = [name for name, end in zip(prepares, ended, strict=True) if end.status == 0]
        if not succeeded:
            wrong.append("neither succeeded")
        if found not in [whole[name] for name in succeeded]:
            nearest = min((differences(found, one) for one in whole.values()), key=len)
            wrong.append(f"what is there is the dataset of no winner: {', '.join(nearest) or 'it is the older one'}")
        loaded = readable(folder, replace(base, words=["prepare"]))[0]
        if loaded != "ok":
            wrong.append(f"it does not load: {loaded}")
        if wrong:
            failed.append(f"race {number} (seed {seed}, older: {older}): {'; '.join(wrong)}")
            report(f"FAILED {failed[-1]}")
    return failed


def _race_faults(ended: Ended) -> list[str]:
    """What is wrong with how one of two ended: it succeeds, or says in one line who is there."""
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    if ended.status == 0 and not errors:
        return []
    if ended.status == 2 and len(errors) == 1 and re.search(r"process|prepar|writ", errors[0]) and "data" in errors[0]:
        return []
    return [f"status {ended.status}: {ended.last_line}"]


def dataset_readers(world: World, n: int) -> list[str]:
    """Load a dataset n times while another process replaces it by one of other tables, to and fro."""
    folder = world.folder / "replaced"
    folder.mkdir()
    target = folder / "data"

    def made(name: str) -> Any:
        import polars as pl

        from cllm4rec.data.preparation import build_dataset

        return build_dataset(pl.read_csv(world.inputs / f"{name}.csv"), pl.read_csv(world.inputs / f"{name}-items.csv"))

    def write() -> None:
        datasets = [made("new"), made("old")]
        number = 0
        while not (folder / "enough").exists():
            datasets[number % 2].save(target)
            number += 1

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
            if found not in expected or found != dataset.about["data_sha256"]:
                wrong.append(f"load {number}: a mixture")
        return wrong

    return _beside(world, folder, read, write)


def run_readers(world: World, n: int) -> list[str]:
    """Load the model of a run n times while its stage is written anew, to and fro between two models."""
    folder = world.folder / "rewritten"
    folder.mkdir()
    one = Scenario(
        "", [], [], [["pretrain", "--output", "run", "--system", "ease", "--dataset", "WORLD/data", *SETTINGS["ease"]]]
    )
    shutil.copytree(world.base(one), folder, dirs_exist_ok=True)
    run = folder / "run"

    def write() -> None:
        from cllm4rec import models
        from cllm4rec.training.checkpoint import RunFolder

        kept = [models.load(run), models.load(run)]
        kept[0]._restore({name: array.copy() for name, array in kept[0]._arrays().items()})
        kept[1]._restore({name: array * 2 for name, array in kept[0]._arrays().items()})
        kept[1].config = replace(kept[0].config, regularization=20.0)
        number = 1
        while not (folder / "reading").exists():
            time.sleep(0.01)
        while not (folder / "enough").exists():
            RunFolder(run).keep("pretrain", kept[number % 2].save)
            number += 1

    def read() -> list[str]:
        from cllm4rec import models

        first = {name: array.copy() for name, array in models.load(run)._arrays().items()}
        wrong = []
        (folder / "reading").touch()
        for number in range(n):
            try:
                model = models.load(run)
                scale = 2 if model.config.regularization == 20.0 else 1
                if any((array != first[name] * scale).any() for name, array in model._arrays().items()):
                    wrong.append(f"load {number}: a mixture")
            except Exception as error:
                wrong.append(f"load {number}: {type(error).__name__}: {str(error)[:300]}")
        return wrong

    return _beside(world, folder, read, write)


def _beside(world: World, folder: Path, read: Callable[[], list[str]], write: Callable[[], None]) -> list[str]:
    """What a reader saw beside a writer."""
    os.chdir(world.folder)
    writer, reader = Child(write, world.folder), Child(read, world.folder)
    seen = reader.wait()
    (folder / "enough").touch()
    wrote = writer.wait()
    wrong = list(seen.result or [])
    wrong += [f"the reader ended with status {seen.status}: {seen.last_line}"] if seen.status else []
    return wrong + ([f"the writer ended with status {wrote.status}: {wrote.last_line}"] if wrote.status else [])


# --------------------------------------------------------------------------------------------------------------- command


def table(rows: list[tuple[str, int, int]]) -> str:
    """Scenario, points, passed, failed."""
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'command, system':<{width}}  {'points':>7} {'passed':>7} {'failed':>7}"]
    lines += [f"{name:<{width}}  {n:>7} {n - failed:>7} {failed:>7}" for name, n, failed in rows]
    n, failed = (sum(row[place] for row in rows) for place in (1, 2))
    return "\n".join([*lines, f"{'all':<{width}}  {n:>7} {n - failed:>7} {failed:>7}"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill the commands at every call that changes the disk.")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--sample", type=int, help="so many trials, drawn by the seed; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the second kills and the races")
    parser.add_argument("--point", type=int, help="this point of the one scenario")
    parser.add_argument("--second", type=int, help="kill the next try at this point too")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--races", type=int, default=80, help="races of two prepare")
    parser.add_argument("--loads", type=int, default=3000, help="loads of a dataset and of a run beside a writer")
    parser.add_argument("--keep", help="folder to work in, which is kept")
    parser.add_argument("--without-users-files", action="store_true", help="no files of the user beside the outputs")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    import_everything()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="kills-")).resolve()
    try:
        return check(options, folder)
    finally:
        os.chdir("/")
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def check(options: argparse.Namespace, folder: Path) -> int:
    """Run what was asked for and print the account. 0 if nothing failed."""
    world = World(folder / "kills", not options.without_users_files)
    chosen = [one for one in scenarios() if options.only in one.name]
    if options.point is not None:
        chosen = [one for one in chosen if one.name == options.only] or chosen[:1]
        trials = [Trial(chosen[0], options.point, options.second)]
    else:
        trials = all_trials(world, chosen, options.seed)
        say(f"{len(trials)} kill points in {len(chosen)} scenarios")
        trials = trials if options.sample is None else sampled(trials, options.sample, options.seed)
    failures = run_trials(world, trials, min(options.jobs, len(trials))) if trials else {}
    unannounced = {one.name: reference(world, one).unannounced for one in chosen}
    rows = []
    for name, failed in failures.items():
        n = sum(one.scenario.name == name for one in trials)
        rows.append((name, n, len(failed)))
    for name, files in unannounced.items():
        if files:
            rows.append((f"{name}: written unseen: {', '.join(files)}", 1, 1))
    if options.races:
        rows.append(("races of two prepare", options.races, len(races(world, options.races, options.seed))))
    for what, read in (("datasets", dataset_readers), ("runs", run_readers)):
        if options.loads:
            wrong = read(world, options.loads)
            for line in wrong[:3]:
                say(f"FAILED loads of {what} beside a writer: {line}")
            rows.append((f"loads of {what} beside a writer", options.loads, len(wrong)))
    say(table(rows))
    return int(any(failed for _, _, failed in rows))


if __name__ == "__main__":
    sys.exit(main())
