"""Commands of the package in forks of a process that has imported it and run nothing.

A trial then costs no import. Polars starts its threads at its first use, and threads do not survive a fork.
So the parent never uses Polars.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cllm4rec.commands.dispatch import COMMANDS

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "POLARS_MAX_THREADS": "1",
}

SECONDS = 120  # after which a process counts as hanging
SETTINGS = {  # flags that make a run quick
    "cllm4rec": ["--epochs", "2", "--batch-size", "6", "--content-warmup", "0", "--learning-rate", "0.002"],
    "rsllm": ["--epochs", "2", "--batch-size", "6", "--learning-rate", "0.002"],
    "ease": ["--regularization", "10"],
}


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status (minus a signal's number), output, result of its task."""

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
    """Import the modules of all commands before any runs, and make the models small."""
    import torch

    torch.set_num_threads(1)
    for name in COMMANDS:
        importlib.import_module(f"cllm4rec.{name}")
    for name in (
        "commands.stages",
        "data.synthetic",
        "models.cllm4rec.recommender",
        "models.rsllm.recommender",
        "models.baselines.ease",
        "models.sequential.sasrec",
    ):
        importlib.import_module(f"cllm4rec.{name}")
    from cllm4rec.models.language.config import BUILT_IN
    from cllm4rec.models.sequential.config import SequentialConfig

    BUILT_IN["tiny"] = (1, 32)
    stages = SequentialConfig.training
    stages["pretrain"] = replace(stages["pretrain"], epochs=2, validate_every=1)


def run_command(command: Sequence[str]) -> None:
    """Run a command in this process, as if typed."""
    import cllm4rec.commands.entry

    sys.argv = list(command)
    module: Any = importlib.import_module(f"cllm4rec.{command[0]}")
    if command[0] == "recommend" and "parts.parquet" in command:  # the writer of parts, as under a launcher
        module.n_launched = lambda: 2
    cllm4rec.commands.entry.run(module.main)
