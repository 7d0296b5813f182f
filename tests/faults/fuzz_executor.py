"""The process in which examples of the fuzzing run: an example a line in, an answer a line out, both JSON.

    python -m tests.faults.fuzz_executor FOLDER     # builds FOLDER/world if it is absent

Its parent kills and restarts it when an example hangs. It measures exit status, output, memory, and writes
outside the scratch folder.
"""

import base64
import faulthandler
import importlib
import io
import json
import logging
import os
import re
import resource
import shutil
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.digests import tensors_sha256
from tests.faults.forks import SETTINGS, import_everything
from tests.faults.mutations import mutate, resign, restore

GIB = 2**30
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
Example = dict[str, Any]
RUNS = {  # run folder -> the commands that made it
    "ease": [["pretrain", "--system", "ease", *SETTINGS["ease"]]],
    "sasrec": [["pretrain", "--system", "sasrec"]],
    "cllm4rec": [["pretrain", *SETTINGS["cllm4rec"]], ["finetune", *SETTINGS["cllm4rec"]]],
    "rsllm": [["pretrain", "--system", "rsllm", *SETTINGS["rsllm"]], ["finetune", *SETTINGS["rsllm"]]],
    "stopped": [["pretrain", *SETTINGS["cllm4rec"]]],
    "stopped-sasrec": [["pretrain", "--system", "sasrec"]],
}
ON_A_DATASET = {  # what reads the mutated dataset
    "recommend": ["recommend", "--run", "WORLD/ease", "--dataset", "target", "--all", "--k", "5"],
    "evaluate": ["evaluate", "--run", "WORLD/ease", "--dataset", "target"],
    "pretrain": [
        "pretrain",
        "--system",
        "ease",
        "--dataset",
        "target",
        "--output",
        "out",
        "--regularization",
        "5",
    ],
}
ON_A_RUN = {  # what reads the mutated run
    "recommend": ["recommend", "--run", "target", "--all", "--k", "5"],
    "evaluate": ["evaluate", "--run", "target"],
    "verify": ["evaluate", "--run", "target", "--verify"],
    "dry-run": ["finetune", "--run", "target", "--dry-run", "--batch-size", "6"],
    "resume": ["pretrain", "--output", "target", "--resume"],
}
DISAGREE = (  # errors of inputs that are valid alone and do not fit each other
    "of this data are not the", "the dataset has no ", "the run's dataset is no longer in ",
    "is not the dataset of the run", "the scores hold NaN", "training diverged", "are required: --dataset",
)  # fmt: skip
NO_TIMES = re.compile(r"[\d,.]+ (users|events)/s, [\d.]+ s|[\d.,]+ (seconds|minutes|s|MiB|GiB)\b")


@dataclass(frozen=True)
class Outcome:
    """How a command ended in this process."""

    status: int
    out: str
    err: str
    trace: str = ""
    peak: int = 0


class Guard:
    """Notes writes outside a folder. An audit hook cannot be removed, so a process has one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outside, self.on = str(folder.resolve()), set[str](), False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not (
            event == "open" or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink")
        ):
            return
        path = arguments[0]
        if isinstance(path, int) or (
            event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES)
        ):
            return
        name = os.fsdecode(path)
        relative_to_descriptor = (
            event != "open" and not os.path.isabs(name) and isinstance(arguments[-1], int)
        )
        if relative_to_descriptor and arguments[-1] >= 0:
            return
        whole = os.path.realpath(name) if "\0" not in name else self.folder
        if not whole.startswith((self.folder, "/dev/", "/proc/")):
            self.outside.add(f"{event} {whole}")


class Executor:
    """Runs examples in a scratch folder next to the world."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world, self.scratch = folder, folder / "world", folder / "scratch" / "work"
        self.expected: dict[str, str] = {}
        import_everything()
        if not (self.world / "ready").exists():
            shutil.rmtree(self.world, ignore_errors=True)
            self._build()
        self.guard = Guard(self.scratch.parent)  # the lock of an output that is the working folder lies there
        status = Path("/proc/self/status").read_text()
        now = int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
        resource.setrlimit(resource.RLIMIT_AS, (now + 4 * GIB, resource.RLIM_INFINITY))

    def _build(self) -> None:
        from cllm4rec.commands.stages import StopRequest
        from cllm4rec.data.synthetic import taste_world

        self.world.mkdir(parents=True)
        self._enter()
        made = taste_world(0, n_users=12, n_items=18, n_events=7)
        made.events.write_csv(self.world / "events.csv")
        made.items.write_csv(self.world / "items.csv")
        tables = ["--interactions", str(self.world / "events.csv"), "--items", str(self.world / "items.csv")]
        self._must(["prepare", *tables, "--output", str(self.world / "data")])
        for name, commands in RUNS.items():
            run = str(self.world / name)
            asked, left = StopRequest.__call__, [9 if name == "stopped" else 6]

            def stop(self: StopRequest, left: list[int] = left) -> bool:
                left[0] -= 1
                return left[0] <= 0

            for command in commands:
                if name.startswith("stopped"):
                    StopRequest.__call__ = stop  # type: ignore[method-assign]
                where = (
                    ["--output", run, "--dataset", str(self.world / "data")]
                    if command[0] == "pretrain"
                    else ["--run", run]
                )
                self._must([*command, *where], (143,) if name.startswith("stopped") else (0,))
                StopRequest.__call__ = asked  # type: ignore[method-assign]
        (self.world / "ready").touch()

    def _must(self, command: list[str], statuses: Sequence[int] = (0,)) -> None:
        ended = self.run(command)
        if ended.status not in statuses:
            raise RuntimeError(f"{command}: {ended}")

    def _enter(self) -> None:
        shutil.rmtree(self.scratch.parent, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        os.chdir(self.scratch)

    def run(self, command: Sequence[str]) -> Outcome:
        """Run a command in this process, as if typed."""
        from cllm4rec.commands import entry

        out, err, trace, status = io.StringIO(), io.StringIO(), "", 0
        logging.getLogger().handlers.clear()
        sys.argv = list(command)
        os.lseek(0, 0, os.SEEK_SET)
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"y\n" * 100))  # whoever is asked agrees
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory is counted from here
        before = _memory("VmRSS")
        with redirect_stdout(out), redirect_stderr(err):
            try:
                entry.run(importlib.import_module(f"cllm4rec.{command[0]}").main)
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except BaseException as error:
                status, trace = 1, _where(error)
        return Outcome(status, out.getvalue(), err.getvalue(), trace, _memory("VmHWM") - before)

    def answer(self, example: Example) -> dict[str, Any]:
        """Outcome (accepted, refused or fault), kind of the fault, message."""
        self._enter()
        self.guard.outside.clear()
        faulthandler.dump_traceback_later(15, file=2)  # where it hangs, for the parent that ends it
        try:
            return getattr(self, f"_{example['kind']}")(example)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"the harness failed: {type(error).__name__} in {last.name}: {str(error)[:200]}"
            return {"outcome": "fault", "fault": fault, "message": traceback.format_exc()[-2000:]}
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.guard.on = False

    def _filled(self, command: Sequence[str]) -> list[str]:
        return [argument.replace("WORLD", str(self.world)) for argument in command]

    def _folder(self, example: Example) -> dict[str, Any]:
        """A mutated dataset or run folder, read by a command."""
        table = ON_A_DATASET if example["target"] == "data" else ON_A_RUN
        command = self._filled(table[example["command"]])
        target = self.scratch / "target"
        expected = self._unmutated(example, command)
        restore(self.world / example["target"], target)
        changed = [mutate(target, example["file"], mutation) for mutation in example["mutations"]]
        if example["resign"]:
            resign(target)
        ended = self._guarded(command)
        names = {path.name for path in target.rglob("*")} | {Path(example["file"]).name, "target"}
        fault = self._fault(ended, (*names, *DISAGREE) if any(changed) else ())
        if fault is None and ended.status == 0 and not example["resign"] and not self._may_differ(example):
            if self._result(ended, example) != expected:
                fault = f"silent: another result after damage of {Path(example['file']).name}"
        return self._told(ended, fault)

    def _may_differ(self, example: Example) -> bool:
        """Weights are mapped: without --verify only their size and header are compared."""
        before, after = (_contents(top) for top in (self.world / example["target"], self.scratch / "target"))
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        return example["command"] not in ("verify", "resume") and any(
            name.name == "model.safetensors"
            and name in before
            and _header(before[name]) == _header(after.get(name, b""))
            for name in changed
        )

    def _unmutated(self, example: Example, command: list[str]) -> str:
        key = f"{example['target']} {example['command']}"
        if key not in self.expected:
            restore(self.world / example["target"], self.scratch / "target")
            ended = self.run(command)
            if ended.status:
                raise RuntimeError(f"{key}: {ended}")
            self.expected[key] = self._result(ended, example)
            self._enter()
        return self.expected[key]

    def _result(self, ended: Outcome, example: Example) -> str:
        """Output and trained weights of a command, without times."""
        trained = {"pretrain": "out", "resume": "target"}.get(example["command"])
        files = sorted((self.scratch / trained).rglob("model.safetensors")) if trained else []
        weights = [tensors_sha256(path) for path in files]
        return NO_TIMES.sub("", ended.out) + " ".join(weights)

    def _config(self, example: Example) -> dict[str, Any]:
        """A configuration file and flags."""
        command = self._filled(example["arguments"])
        if example["yaml"] is not None:
            (self.scratch / "config.yaml").write_bytes(base64.b64decode(example["yaml"]))
            command += ["--config", "config.yaml"]
        for name in ("data", "ease", "sasrec"):
            shutil.copytree(self.world / name, self.scratch / name)
        ended = self._guarded(command)
        return self._told(ended, self._fault(ended, ()))

    def _table(self, example: Example) -> dict[str, Any]:
        """A file that prepare reads."""
        data = base64.b64decode(example["data"])
        (self.scratch / example["name"]).write_bytes(data)
        tables = {"interactions": str(self.world / "events.csv"), example["role"]: example["name"]}
        command = ["prepare", "--output", "data", *example["flags"]]
        command += [argument for role, name in tables.items() for argument in (f"--{role}", name)]
        ended = self._guarded(command)
        fault = self._fault(ended, (example["name"], "nothing is left", "--", "interactions", "events.csv"))
        if (
            fault is None
            and ended.status
            and sorted(path.name for path in self.scratch.iterdir()) != [example["name"]]
        ):
            fault = "a refused table leaves something"
        if fault is None and ended.status == 0:
            fault = self._loads("data")
        return self._told(ended, fault)

    def _loads(self, name: str) -> str | None:
        """The fault, if a dataset that was just written cannot be loaded."""
        from cllm4rec.data.dataset import Dataset

        try:
            dataset = Dataset.load(self.scratch / name)
            same = replace(dataset).fingerprint == dataset.hashes.data_sha256
        except Exception as error:
            return f"what was prepared does not load: {_where(error)}"
        return None if same else "what was prepared loads as other data"

    def _frame(self, example: Example) -> dict[str, Any]:
        """Frames that Dataset.from_frame takes."""
        import pandas as pd
        import polars as pl

        from cllm4rec.data.dataset import Dataset

        columns = {name: [json.loads(cell) for cell in cells] for name, cells in example["columns"].items()}
        try:
            frame = pd.DataFrame(columns) if example["pandas"] else pl.DataFrame(columns, strict=False)
        except Exception as error:
            return {"outcome": "refused", "message": f"no such frame: {error}"}
        try:
            Dataset.from_frame(frame, split=example["split"])
        except ValueError as error:
            one_line = str(error) and "\n" not in str(error)
            return self._told(
                Outcome(2, "", f"error: {error}"), None if one_line else "an error of several lines"
            )
        except BaseException as error:
            return self._told(Outcome(1, "", "", _where(error)), f"traceback: {_where(error).split(': ')[0]}")
        return self._told(Outcome(0, "", ""), None)

    def _guarded(self, command: list[str]) -> Outcome:
        self.guard.on = True
        ended = self.run(command)
        self.guard.on = False
        return ended

    def _fault(self, ended: Outcome, names: tuple[str, ...]) -> str | None:
        """The fault of a command's end, if any. An error must hold one of the names."""
        if (self.scratch / "code-ran").exists():
            return "code of a folder ran"
        if self.guard.outside:
            return f"written outside: {sorted(self.guard.outside)[0]}"
        if ended.trace:
            return f"traceback: {ended.trace.split(': ')[0]}"
        if ended.peak > GIB:
            return f"memory: {ended.peak / GIB:.1f} GiB"
        if ended.status == 0:
            return None
        if ended.status != 2:
            return f"status {ended.status}"
        message = ended.err[ended.err.find("error: ") :]
        if not message.startswith("error: ") or message.count("\n") > 1 or len(message) > 20_000:
            return f"not one line: {message[:200]!r}"
        if names and not any(name in message for name in names):
            return f"names no file: {re.sub(r'[0-9]+|0x[0-9a-f]+', '0', message)[:40].strip()}"
        return None

    def _told(self, ended: Outcome, fault: str | None) -> dict[str, Any]:
        if fault is not None:
            return {"outcome": "fault", "fault": fault, "message": ended.trace or ended.err[-300:]}
        return {"outcome": "refused" if ended.status else "accepted", "message": ended.err[-300:]}


def _contents(top: Path) -> dict[Path, bytes]:
    """Path below a folder -> content of the file."""
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def _header(weights: bytes) -> tuple[int, bytes]:
    """The size of a safetensors file, and its header."""
    return len(weights), weights[: 8 + int.from_bytes(weights[:8], "little")]


def _memory(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _where(error: BaseException) -> str:
    """The kind of an exception, and the innermost function of the package on its way."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cllm4rec" in frame.filename]
    inner = [frame for frame in frames if "tests" not in Path(frame.filename).parts]
    at = f" at {Path(inner[-1].filename).name}:{inner[-1].name}" if inner else ""
    return f"{type(error).__name__}{at}: {' '.join(str(error).split())[:200]}"


def main() -> None:
    examples, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries does not mix with the answers
    if os.isatty(0):
        sys.exit(__doc__)
    yes = Path(sys.argv[1]) / "yes.txt"
    yes.write_text("y\n" * 100)
    os.dup2(os.open(yes, os.O_RDONLY), 0)
    executor = Executor(Path(sys.argv[1]).resolve())
    files = {
        name: sorted(
            str(path.relative_to(executor.world / name))
            for path in (executor.world / name).rglob("*")
            if path.is_file()
        )
        for name in ("data", *RUNS)
    }
    answers.write(json.dumps(files) + "\n")
    answers.flush()
    for line in examples:
        answers.write(json.dumps(executor.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
