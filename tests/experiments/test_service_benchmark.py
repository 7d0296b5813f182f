"""The benchmark of the service: what it reads of wrk, and a short run of all its loads."""

import os
import re
import shutil
from pathlib import Path

import pytest

from experiments.benchmarks import service
from tests.support.commands import call
from tests.support.worlds import taste_dataset


def test_the_numbers_of_wrk_are_read() -> None:
    lines = [
        "Running 1s test",
        "status 200 5",
        "status 503 2",
        "status 200 4",
        "latency 1.5 20",
        "users 9.5",
        "errors 1",
    ]
    printed = "\n".join([lines[0], *(line.replace(" ", "\t") for line in lines[1:])])
    assert service.Load.of(printed) == service.Load(9.5, 1.5, 20.0, {200: 9, 503: 2}, 1)


@pytest.mark.slow
def test_all_loads_are_answered_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("no wrk")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("no second core")
    taste_dataset().save(tmp_path / "data")
    run = tmp_path / "run"
    call("pretrain", "--system", "sasrec", "--dataset", tmp_path / "data", "--output", run, "--epochs", 1)
    capsys.readouterr()
    service.main(run, seconds=1, soak=5, ratios=0)
    printed = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    loads = {cells[0].strip(): cells[4].strip() for cells in lines[1:]}
    assert list(loads) == [
        "one user",
        "capacity, 64 connections",
        "80% of it, 5 s",
        "3 times as much",
        "one user, afterwards",
    ]
    for load, answers in loads.items():
        refused = r"(, [\d,]+ x 503)?" if load == "3 times as much" else ""  # lists go on
        assert re.fullmatch(r"[\d,]+ x 200" + refused, answers), (load, answers)
    assert re.search(r"^bare forward [\d.]+ ms; one user by HTTP [\d.]+ times as long \(", printed, re.M)
    assert re.search(r"^one more client under 3 times the load: [\d,]+ x (200|503), median ", printed, re.M)
