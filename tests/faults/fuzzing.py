"""Random input: each example is accepted by a rule or refused in one line.

    python -m tests.faults.fuzzing --minutes 10 [--seed 5] [--only tables]   # prints the seed
    python -m tests.faults.fuzzing --example '{"kind": ...}'                 # as printed by a failure

Hypothesis makes the examples. They run in another process, fuzz_executor.py,
which may hang or abort.
"""

import argparse
import json
import os
import random
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.faults.fuzz_examples import Example, Examples, groups

ROOT = Path(__file__).parents[2]
SECONDS = 20  # after which an example hangs


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Executor:
    """The other process, started again after a hang or an abort."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, list[str]] = {}
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.fuzz_executor", str(self.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment["HF_HOME"] = str(
            self.folder / "huggingface"
        )  # transformers copies code there before running it
        self.log = (self.folder / "executor.log").open("ab")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            cwd=self.folder,
        )
        files = self._line(600)
        if files is None:
            raise RuntimeError((self.folder / "executor.log").read_text()[-3000:])
        self.files = json.loads(files)

    def _line(self, seconds: float) -> bytes | None:
        """The next answer; None if none comes in time."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return (self.process.stdout.readline() or None) if ready else None

    def ask(self, example: Example) -> dict[str, Any]:
        """The outcome of an example."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(example).encode() + b"\n")
        self.process.stdin.flush()
        answer = self._line(SECONDS)
        if answer is not None:
            return dict(json.loads(answer))
        ended = self.process.poll()
        assert self.process.stdout is not None
        if (
            ended is None and select.select([self.process.stdout], [], [], 0)[0]
        ):  # its output is closed: it is ending
            ended = self.process.wait()
        self.close()
        fault = (
            f"hang: over {SECONDS} s" if ended is None else f"abort: the process ended with status {ended}"
        )
        self._start()
        log = (self.folder / "executor.log").read_text(errors="replace")
        return {
            "outcome": "fault",
            "fault": fault,
            "message": log[log.rfind("Timeout (") :][:3000] if ended is None else log[-500:],
        }

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


class Account:
    """Counts of outcomes, and an example of each kind of fault."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.faults: dict[str, tuple[Example, str]] = {}
        self.times: Counter[str] = Counter()

    def add(self, example: Example, answer: dict[str, Any]) -> None:
        self.outcomes[answer["outcome"]] += 1
        if "fault" in answer:
            fault = answer["fault"]
            self.times[fault] += 1
            if fault not in self.faults or len(json.dumps(example)) < len(json.dumps(self.faults[fault][0])):
                self.faults[fault] = (example, answer["message"])

    def __str__(self) -> str:
        return ", ".join(f"{self.outcomes[name]} {name}" for name in ("accepted", "refused", "fault"))

    def report(self) -> str:
        """The kinds of faults, the most frequent first, each with its shortest example."""
        lines = []
        for fault, n in self.times.most_common():
            example, message = self.faults[fault]
            again = f"python -m tests.faults.fuzzing --example {shlex.quote(json.dumps(example))}"
            lines.append(f"{n} x {fault}\n    {message.strip()}\n    {again}")
        return "\n".join(lines)


def tried(
    ask: Callable[[Example], dict[str, Any]],
    examples: Examples,
    n: int,
    seeded: int | None = None,
    until: float = 1e30,
) -> Account:
    """Run n examples, or fewer if the time is up. Without a seed the examples are fixed."""
    account = Account()

    @settings(
        max_examples=n, derandomize=seeded is None, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(example=examples)
    def run(example: Example) -> None:
        if time.monotonic() < until:
            account.add(example, ask(example))

    (run if seeded is None else seed(seeded)(run))()
    return account


def main() -> int:
    parser = argparse.ArgumentParser(description="Random input, for as long as asked.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="of the examples; drawn and printed if not given")
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--example", help="run one example, as printed by a failure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        executor = Executor(Path(folder))
        try:
            if options.example:
                answer = executor.ask(json.loads(options.example))
                say(json.dumps(answer, indent=2))
                return int("fault" in answer)
            return fuzz(executor, options)
        finally:
            executor.close()


def fuzz(executor: Executor, options: argparse.Namespace) -> int:
    """Rounds of all groups until the time is up."""
    first_seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    until = time.monotonic() + 60 * options.minutes
    say(f"seed {first_seed}")
    totals: dict[str, Account] = {}
    round_number = 0
    while time.monotonic() < until:
        for name, (examples, n) in groups(executor.files).items():
            if options.only in name:
                account = totals.setdefault(name, Account())
                added = tried(executor.ask, examples, max(20, n // 4), first_seed + round_number, until)
                account.outcomes += added.outcomes
                account.times += added.times
                account.faults = added.faults | account.faults
                say(f"{name}: {account}")
        round_number += 1
    for name, account in totals.items():
        if account.faults:
            say(f"\n{name}\n{account.report()}")
    return int(any(account.faults for account in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
