"""The service under load: one user, capacity, 80 % of it for minutes, three times as much, and afterwards.

    python -m experiments.benchmarks.service --run runs/first --seconds 10 --soak 300

Data: a run whose dataset is there. Needs wrk on the path, and two cores: the service has the first, wrk the
second. Each request asks for 10 items, for one user with a history after another: the service computes the
list of a user once for all requests of a batch.

Prints for each load: users per second, the median and the 99th percentile of the latency, answers by status,
and the memory of the process. Under overload one more client measures how long lists and refusals take.
The ratio of one user to the bare forward is measured in rounds, as a machine's speed drifts: the median
latency of a second, over the CPU time of the network's states of the same histories, on the same core, before
and after that second. `--ratios N` measures it alone, in N rounds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil

from cllm4rec.commands.entry import say
from experiments.benchmarks.bare_forward import BareForward
from experiments.commands import argument_parser, ends_in_one_line
from experiments.report import markdown_table

K = 10  # as by default
ONE, MANY, PACED, OVERLOAD = 1, 64, 256, 1024  # connections
SHARE, TIMES = 0.8, 3  # of the capacity
CLOSE, TRIALS = 0.05, 4  # of the rate that is aimed at
USERS, USERS_OF_ROUND = 1_000, 200  # that take turns, and those whose ratio is measured
ROUNDS = 15
SAMPLE_SECONDS = 2.0
SCRIPT = """
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
local bodies, place = {{{bodies}}}, 0
function request()
  place = place % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[place])
end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() statuses = {{}}; began = false end
function delay()
  if not began then began = true; return math.random() * {pause} end
  return {pause}
end
function response(status) statuses[status] = (statuses[status] or 0) + 1 end
function done(summary, latency)
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do print("status", status, count) end
  end
  print("latency", latency:percentile(50) / 1000, latency:percentile(99) / 1000)
  print("users", summary.requests / summary.duration * 1e6)
  local errors = summary.errors
  print("errors", errors.connect + errors.read + errors.write + errors.timeout)
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk measured.

    Attributes:
        users: answers per second.
        median, p99: of the latency, milliseconds.
        statuses: status -> answers.
        errors: of connections.
    """

    users: float
    median: float
    p99: float
    statuses: dict[int, int]
    errors: int

    @classmethod
    def of(cls, output: str) -> "Load":
        """The numbers that the script prints."""
        lines = [line.split("\t") for line in output.splitlines() if "\t" in line]
        statuses: dict[int, int] = {}
        for status, count in (line[1:] for line in lines if line[0] == "status"):
            statuses[int(status)] = statuses.get(int(status), 0) + int(count)
        values = {line[0]: [float(value) for value in line[1:]] for line in lines if line[0] != "status"}
        median, p99 = values["latency"]
        return cls(values["users"][0], median, p99, statuses, int(values["errors"][0]))


@contextmanager
def served(run: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A service on the first core, and its address."""
    line = [sys.executable, "-m", "cllm4rec", "serve", "--run", run, "--port", "0"]
    with subprocess.Popen([*map(str, line)], stderr=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {0})
        assert process.stderr is not None
        for text in process.stderr:
            if found := re.search(r"serving on (\S+)", text):
                break
        else:
            raise SystemExit("error: the service did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop it
        try:
            yield psutil.Process(process.pid), found[1]
        finally:
            process.terminate()


def measured(address: str, bodies: Sequence[str], connections: int, seconds: int, pause: float = 0.0) -> Load:
    """Requests of some connections, each with pauses of so many milliseconds after an answer."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "requests.lua"
        quoted = ", ".join(f"[==[{body}]==]" for body in bodies)
        script.write_text(SCRIPT.format(bodies=quoted, pause=f"{pause:.3f}"))
        flags = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script))
        ended = subprocess.run(
            ["taskset", "-c", "1", "wrk", *flags, f"{address}/recommend"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return Load.of(ended.stdout)


def pause_for(address: str, bodies: Sequence[str], connections: int, seconds: int, users: float) -> float:
    """The pause, in milliseconds, with which some connections send so many requests a second.

    The time of an answer is taken off the pause. It depends on the pause, which is corrected until the rate
    is within `CLOSE` of the aim, or `TRIALS` times.
    """
    aim = connections / users * 1000  # between two requests of a connection
    pause = aim
    for _ in range(TRIALS):
        answered = measured(address, bodies, connections, seconds, pause).users
        if abs(answered / users - 1) < CLOSE:
            break
        pause = max(0.0, pause + aim - connections / answered * 1000)
    return pause


class Client(threading.Thread):
    """Asks for one list after another until it is ended.

    Attributes:
        seconds: status -> the time of each answer.
    """

    def __init__(self, asked: Request) -> None:
        super().__init__()
        self.asked, self.seconds, self._ended = asked, defaultdict[int, list[float]](list), threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            try:
                with urlopen(self.asked, timeout=30) as answer:
                    answer.read()
                    status = answer.status
            except HTTPError as error:
                status = error.code
            self.seconds[status].append(time.perf_counter() - began)

    def end(self) -> str:
        """The median and the 99th percentile by status, in milliseconds."""
        self._ended.set()
        self.join()
        named = []
        for status, times in sorted(self.seconds.items()):
            median, p99 = (np.quantile(times, share) * 1000 for share in (0.5, 0.99))
            named.append(f"{len(times):,} x {status}, median {median:.1f} ms, 99 % {p99:.1f} ms")
        return "; ".join(named)


class Memory:
    """Samples the resident memory of a process, MiB."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.samples, self._ended = process, list[float](), threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.samples.append(self.process.memory_info().rss / (1 << 20))

    def end(self) -> str:
        """The first, largest and last sample."""
        self._ended.set()
        self._thread.join()
        first, last = self.samples[0], self.samples[-1]
        return f"{first:.0f}, {max(self.samples):.0f}, {last:.0f}"


def row(name: str, load_: Load, memory: str = "") -> list[str]:
    """A line of the table."""
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(load_.statuses.items()))
    errors = f", {load_.errors} errors" if load_.errors else ""
    return [name, f"{load_.users:,.0f}", f"{load_.median:.1f}", f"{load_.p99:.1f}", statuses + errors, memory]


def ratio_sentence(address: str, bodies: Sequence[str], forward: BareForward, rounds: int) -> str:
    """The time of one user by HTTP over that of the bare forward."""
    forward.milliseconds(USERS_OF_ROUND)  # the first calls take longer
    bare, ratios = [forward.milliseconds(USERS_OF_ROUND)], []
    for _ in range(rounds):
        one = measured(address, bodies[:USERS_OF_ROUND], ONE, 1)
        bare.append(forward.milliseconds(USERS_OF_ROUND))
        ratios.append(one.median / np.mean(bare[-2:]))
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return (
        f"bare forward {np.median(bare):.2f} ms; one user by HTTP {middle:.2f} times as long "
        f"(median of {rounds} rounds, quartiles {low:.2f} and {high:.2f})"
    )


def main(run: Path, seconds: int, soak: int, ratios: int) -> None:
    if shutil.which("wrk") is None or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("error: this needs wrk on the path (apt-get install wrk) and two cores")
    forward = BareForward(run, USERS)
    bodies = [json.dumps({"user": user, "k": K}) for user in forward.users]
    with served(run) as (process, address):
        if ratios:
            say(ratio_sentence(address, bodies, forward, ratios))
            return
        asked = Request(f"{address}/recommend", bodies[0].encode(), {"Content-Type": "application/json"})
        with urlopen(asked) as answer:
            assert len(json.load(answer)["items"]) == K
        ratio = ratio_sentence(address, bodies, forward, ROUNDS)
        one = measured(address, bodies, ONE, seconds)
        capacity = measured(address, bodies, MANY, seconds)
        pause = pause_for(address, bodies, PACED, seconds, SHARE * capacity.users)
        memory = Memory(process)
        soaked = measured(address, bodies, PACED, soak, pause)
        over_memory = memory.end()
        pause = pause_for(address, bodies, OVERLOAD, seconds, TIMES * capacity.users)
        client = Client(asked)
        client.start()
        overload = measured(address, bodies, OVERLOAD, seconds, pause)
        by_status = client.end()
        after = measured(address, bodies, ONE, seconds)
    lines = [
        row("one user", one),
        row(f"capacity, {MANY} connections", capacity),
        row(f"{SHARE:.0%} of it, {soak} s", soaked, over_memory),
        row(f"{TIMES} times as much", overload),
        row("one user, afterwards", after),
    ]
    header = ["load", "answers/s", "median ms", "99 % ms", "answers", "MiB: first, largest, last"]
    say(f"{run}, {K} items for a user\n\n{markdown_table(header, lines)}\n")
    say(ratio)
    say(f"one more client under {TIMES} times the load: {by_status}")


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder; its dataset has to be there")
    parser.add_argument("--seconds", type=int, default=10, help="of each load (default: 10)")
    parser.add_argument("--soak", type=int, default=300, help="seconds at 80 %% of capacity (default: 300)")
    parser.add_argument(
        "--ratios", type=int, default=0, metavar="N", help="measure the ratio alone, N rounds"
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = vars(_arguments())
    with ends_in_one_line():
        main(**options)
