"""What ends a command from outside: odd configurations and numbers, terminals, full disks, memory, signals, lost processes.

Each ends in one line, or in silence, with the usual exit status, and leaves nothing half-written.
"""

import ast
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import cllm4rec
from cllm4rec import evaluate, finetune, prepare, pretrain, recommend
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.failures import LostProcessError, line_of, lost_process

COMMANDS = {"prepare": prepare, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}
PACKAGE = Path(cllm4rec.__file__).parent


def call(command: str, *arguments: object) -> None:
    COMMANDS[command].main([str(one) for one in arguments])


def refusal(command: str, *arguments: object) -> str:
    with pytest.raises(ValueError) as caught:
        call(command, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """events.csv and items.csv with titles that few terminals have; data and runs made of them."""
    folder = tmp_path_factory.mktemp("failures")
    world = taste_world(3, n_users=40, n_items=30, n_events=10)
    items = world.items.with_columns(title=world.items["title"] + " ☃ 日本")
    world.events.write_csv(folder / "events.csv")
    items.write_csv(folder / "items.csv")
    build_dataset(world.events, items).save(folder / "data")
    call("pretrain", "--system", "popularity", "--dataset", folder / "data", "--output", folder / "run")
    return folder


def start(command: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A command in a process."""
    typed = [sys.executable, "-m", f"cllm4rec.{command}", *map(str, arguments)]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(typed, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------- odd configurations


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"epochs: [[1]]", "epochs is neither a value nor a list of values"),
        (b"epochs: {a: 1}", "epochs is neither a value nor a list of values"),
        (b"epochs:\n  - {a: 1}", "epochs is neither a value nor a list of values"),
        (b"<<: {epochs: 1}", "<< is neither a value nor a list of values"),
        (b"1: 2", "--1 is not a flag of this command"),
        (b"- epochs: 1", "expected lines of `flag: value`"),
        (b"epochs", "expected lines of `flag: value`"),
        (b"epochs: 2020-01-01", "argument --epochs: invalid int value: '2020-01-01'"),
        (b"epochs: [1, 2]", "argument --epochs: invalid int value: '1,2'"),
        (b"epochs: !!python/object/apply:os.getenv [HOME]", "argument --epochs: invalid int value: 'HOME'"),
        (b"epochs: &a [*a]", "not YAML"),
        (b"? [a]\n: b", "not YAML"),
        (b"epochs: 1\n---\nepochs: 2", "not YAML"),
        (b"epochs: \xff", "not YAML"),
        (b"epochs: \0", "not YAML"),
        (b"epochs: " + b"[" * 100_000, "not YAML"),
        (b"#" * (1 << 21), "2,097,152 bytes are more than any configuration has"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "b is neither a value nor a list of values"),
    ],
)
def test_an_odd_configuration_is_refused_in_one_line(content: bytes, words: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    flags = ("--dataset", place / "data", "--output", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert words in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsystem: popularity\n", b"", b"# nothing\n"])
def test_a_configuration_may_begin_with_a_byte_order_mark_and_may_be_empty(
    content: bytes, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "run.yaml").write_bytes(content)
    call("pretrain", "--dataset", place / "data", "--output", place / "new", "--config", place / "run.yaml", "--dry-run")
    assert capsys.readouterr().out.startswith("popularity" if b"popularity" in content else "cllm4rec")


# ------------------------------------------------------------------------------------------------------------- odd numbers


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
@pytest.mark.parametrize(
    "command",
    ["prepare --interactions {0}/events.csv --output {1}", "prepare --interactions {0}/events.csv --output {1} --shuffle-ties",
     "pretrain --dataset {0}/data --output {1}", "pretrain --dataset {0}/data --output {1} --system ials",
     "pretrain --dataset {0}/data --output {1} --system sasrec", "evaluate --run {0}/run --candidates 5"],
)  # fmt: skip
def test_a_seed_that_is_negative_or_beyond_64_bits_is_refused(command: str, seed: int, place: Path, tmp_path: Path) -> None:
    name, *flags = command.format(place, tmp_path / "new").split()
    flags += [] if flags[-1] == "--shuffle-ties" else ["--seed"]
    assert f"is {seed}: " in refusal(name, *flags, seed)
    assert not (tmp_path / "new").exists()


def test_the_largest_seed_is_taken(place: Path, tmp_path: Path) -> None:
    flags = ("--regularization", 1, "--alpha", 1, "--iterations", 1, "--factors", 4)
    for number, seed in enumerate((0, 2**63 - 1)):
        run = tmp_path / str(number)
        call("pretrain", "--dataset", place / "data", "--system", "ials", *flags, "--seed", seed, "--output", run)
        call("evaluate", "--run", run, "--candidates", 5, "--seed", seed)


@pytest.mark.parametrize(
    "typed",
    ["recommend --all --k 10**30", "recommend --all --k 0", "evaluate --candidates 10**30", "evaluate --candidates 10**18",
     "evaluate --candidates 1", "evaluate --candidates 5 --draws 10**18", "evaluate --candidates 5 --draws 0",
     "pretrain --batch-size 10**30", "pretrain --accumulation 10**18", "pretrain --sampled 10**18", "pretrain --epochs -1",
     "pretrain --system sasrec --width 10**18", "pretrain --system sasrec --layers 10**18",
     "pretrain --system sasrec --length 10**18", "pretrain --system ials --factors 10**18",
     "prepare --min-rating nan", "prepare --min-rating inf", "prepare --k-core 10**30"],
)  # fmt: skip
def test_absurd_numbers_are_refused_in_one_line(typed: str, place: Path, tmp_path: Path) -> None:
    command, *flags = (str(10 ** int(part[4:])) if part.startswith("10**") else part for part in typed.split())
    own = {
        "recommend": ["--run", place / "run"],
        "evaluate": ["--run", place / "run"],
        "pretrain": ["--dataset", place / "data", "--output", tmp_path / "new"],
        "prepare": ["--interactions", place / "events.csv", "--output", tmp_path / "new"],
    }
    assert flags[-1] in refusal(command, *own[command], *flags)
    assert not (tmp_path / "new").exists()


def test_as_many_items_as_there_are_may_be_asked_for_and_more(place: Path, tmp_path: Path) -> None:
    call("recommend", "--run", place / "run", "--all", "--k", 10**18, "--output", tmp_path / "lists.csv")


# --------------------------------------------------------------------------------------------------- terminals and encodings


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "ASCII"],
)
def test_titles_that_the_terminal_does_not_have_are_listed_with_replacements(
    environment: dict[str, str], place: Path, tmp_path: Path
) -> None:
    users = ("--run", place / "run", "--all", "--k", 2)
    process = start("recommend", *users, **environment)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    lines = printed.splitlines()
    assert len(lines) == 81
    assert all(line.endswith(" ? ??") for line in lines[1:])
    process = start("recommend", *users, "--output", tmp_path / "lists.csv", **environment)
    process.communicate(timeout=60)
    assert (tmp_path / "lists.csv").read_text("utf-8").splitlines()[1].endswith(" ☃ 日本")


def test_a_closed_output_costs_nothing(place: Path) -> None:
    typed = f"{sys.executable} -m cllm4rec.recommend --run {place / 'run'} --all >&-"
    done = subprocess.run(typed, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_text_is_read_and_written_in_an_encoding_that_is_named() -> None:
    """Else it is that of the machine, and a folder cannot be taken to another one."""
    silent = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                n_before = {"read_text": 0, "write_text": 1}.get(name)
                named = any(word.arg == "encoding" for word in node.keywords)
                if isinstance(node.func, ast.Attribute) and n_before is not None and len(node.args) <= n_before and not named:
                    silent.append(f"{path.name}, line {node.lineno}")
                binary = any(isinstance(one, ast.Constant) and "b" in str(one.value) for one in node.args[1:2])
                if isinstance(node.func, ast.Name) and name == "open" and not named and not binary:
                    silent.append(f"{path.name}, line {node.lineno}")
    assert silent == []


# -------------------------------------------------------------------------------------------------- full disks, little memory


def little_disk() -> None:
    """Files of at most 2,000 bytes, in the process that is begun."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize(
    ("command", "flags", "new"),
    [
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.parquet", "new.parquet"),
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.csv", "new.csv"),
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.jsonl", "new.jsonl"),
        ("evaluate", "--run {0}/run --per-user {1}/new.jsonl", "new.jsonl"),
        ("prepare", "--interactions {0}/events.csv --items {0}/items.csv --output {1}/new", "new"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(command: str, flags: str, new: str, place: Path, tmp_path: Path) -> None:
    typed = [sys.executable, "-m", f"cllm4rec.{command}", *flags.format(place, tmp_path).split()]
    done = subprocess.run(typed, capture_output=True, text=True, preexec_fn=little_disk)  # noqa: PLW1509
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*File too large.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("Unable to allocate 8.00 TiB for an array"), OSError(12, "Cannot allocate memory"),
     RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
     RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
     torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")],
)  # fmt: skip
def test_little_memory_is_named_as_such(error: BaseException) -> None:
    line = line_of(error)
    assert line is not None
    assert line.startswith("not enough memory (")
    assert "--batch-size" in line
    assert "\n" not in line


def test_a_defect_is_not_dressed_up_as_a_mistake() -> None:
    assert line_of(RuntimeError("shapes differ")) is None
    assert line_of(KeyError("x")) is None
    assert not lost_process(RuntimeError("Connection closed by peer")), "there is no other process"


# -------------------------------------------------------------------------------------------------------------------- signals


def began(process: subprocess.Popen[str]) -> bool:
    """Whether Python has come to the package: it says so of each module that it imports."""
    assert process.stderr is not None
    return any("cllm4rec.interruption" in line and "import" in line for line in iter(process.stderr.readline, ""))


FLAGS = {
    "prepare": "--interactions {0}/events.csv --output {1}/new",
    "pretrain": "--dataset {0}/data --output {1}/new",
    "finetune": "--run {0}/run --epochs 50",
    "evaluate": "--run {0}/run",
    "recommend": "--run {0}/run --all --output {1}/new.parquet",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", FLAGS)
def test_a_signal_while_libraries_are_imported_ends_a_command_in_silence(
    command: str, number: signal.Signals, place: Path, tmp_path: Path
) -> None:
    flags = FLAGS[command].format(place, tmp_path).split()
    process = start(command, *flags, PYTHONVERBOSE="1")
    assert began(process)
    time.sleep(0.03)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", FLAGS)
def test_a_signal_at_any_moment_ends_a_command_in_silence(
    command: str, number: signal.Signals, place: Path, tmp_path: Path
) -> None:
    """Before the package is reached, Python itself ends with a traceback; after the last line, with status 0."""
    for moment in range(16):
        folder = tmp_path / str(moment)
        folder.mkdir()
        process = start(command, *FLAGS[command].format(place, folder).split())
        time.sleep(0.1 + moment / 10)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        modules = set(re.findall(r"/cllm4rec/(\w+)\.py", said))
        early = modules <= {"__init__", "interruption"} and ("KeyboardInterrupt" in said or process.returncode == -number)
        assert process.returncode in (0, 128 + number) or early, (moment, process.returncode, said)
        if command != "pretrain":  # which says of its training how to go on
            assert said.count("\n") <= 1 or early, (moment, said)
            assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_importing_the_package_leaves_signals_as_they_are() -> None:
    code = """
import signal, sys
def state():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook, sys.unraisablehook
before = state()
import cllm4rec, cllm4rec.cli, cllm4rec.interruption, cllm4rec.pretrain, cllm4rec.recommend
print(state() == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


# ------------------------------------------------------------------------------------------------------------- lost processes


def test_a_lost_process_is_told_by_its_line() -> None:
    assert line_of(LostProcessError("go on with: x")) == "go on with: x"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_of_two_has_the_other_say_how_to_go_on(lost: int, place: Path, tmp_path: Path) -> None:
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    flags = ["--dataset", place / "data", "--output", tmp_path / "a run", "--epochs", 500, "--patience", 500]
    typed = [sys.executable, "-m", *launch, "-m", "cllm4rec.pretrain", *map(str, flags), "--learning-rate", "1e-5"]
    own = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(typed, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "a run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_text("utf-8").splitlines()) > 1):
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    next(one for one in children if one.environ().get("RANK") == str(lost)).kill()
    _, said = process.communicate(timeout=120)
    lines = said.splitlines()
    resume = f"go on with: python -m cllm4rec.pretrain --output '{tmp_path / 'a run'}' --resume"
    assert sum(line.endswith(resume) for line in lines) == 1, said
    told = next(number for number, line in enumerate(lines) if line.endswith(resume))
    assert lines[told].startswith("error: another process of this training has ended; what was saved last is kept; ")
    assert not any("Traceback" in line for line in lines[:told])
    call("pretrain", "--output", tmp_path / "a run", "--resume", "--dry-run")
    assert len(json.loads(metrics.read_text("utf-8").splitlines()[0])) > 3
