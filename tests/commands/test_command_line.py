"""The console script `cllm4rec` and `python -m cllm4rec`: one page of help, and the commands behind it.

The script is written as pip writes it, from the entry point of setup.cfg. So nothing needs to be installed.
"""

import ast
import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import polars as pl
import pytest

import cllm4rec
from cllm4rec.commands.dispatch import COMMANDS, HELP, dispatch
from cllm4rec.commands.flags import LAUNCHED, started_as
from tests.commands.events import ITEMS, title, write_csv, write_events
from tests.support.commands import assert_refused, default_signals, run_launched

MODULE = ("-m", "cllm4rec")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script."""
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[2] / "setup.cfg")
    name, entry_point = settings["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = entry_point.split(":")
    path = tmp_path_factory.mktemp("bin") / name
    path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return path


@pytest.fixture(params=["script", "module"])
def started(request: pytest.FixtureRequest, script: Path) -> list[str]:
    """Arguments of Python that start `cllm4rec`."""
    return [str(script)] if request.param == "script" else list(MODULE)


def run(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, run to its end."""
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, cwd=folder)


@pytest.mark.parametrize("flags", [[], ["--help"], ["-h"]], ids=["alone", "--help", "-h"])
def test_help_fits_on_a_screen(started: list[str], flags: list[str]) -> None:
    ended = run(*started, *flags)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{HELP}\n", "")
    lines = ended.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_help_describes_the_commands_in_the_order_of_use() -> None:
    described = HELP.partition("in the order of use:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in described.splitlines()] == list(COMMANDS)


def test_the_example_of_help_runs_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "events.csv", timestamp=lambda user, item: 1_600_000_000 + 1000 * user + item)
    write_csv(tmp_path / "items.csv", [{"item_id": item_id, "title": title(item_id)} for item_id in ITEMS])
    example = HELP.partition("Example:")[2].partition("\n\n")[0].splitlines()[1:]
    commands = [shlex.split(line) for line in example]
    # vectors needs a language model, extend new tables, and serve does not end
    needed = [command for command in COMMANDS if command not in ("vectors", "extend", "serve")]
    assert [command[:2] for command in commands] == [["cllm4rec", command] for command in needed]
    monkeypatch.chdir(tmp_path)
    for _, command, *flags in commands:
        shorter = ["--epochs", "1"] if command in ("pretrain", "finetune") else []
        dispatch([command, *flags, *shorter])
    assert (tmp_path / "lists.csv").read_text().startswith("user_id,item_id,rank,score,title\n")
    assert "ndcg" in capsys.readouterr().out


def test_commands_that_use_one_process_are_refused_to_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process would write the same files, or listen on the same port."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = [command for command in COMMANDS if command not in LAUNCHED]
    assert alone == ["prepare", "vectors", "extend", "serve"]
    for command in alone:
        with pytest.raises(ValueError, match=f"^{command} uses one process, and WORLD_SIZE is 2: start it"):
            dispatch([command, "--help"])


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "polars", "numpy", "scipy"}
    code = f"""
import sys
from cllm4rec.commands.main import main
sys.argv = ["cllm4rec", "--help"]
main()
sys.exit(" ".join({heavy} & set(sys.modules)) or 0)
"""
    ended = run("-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_reader_may_close_the_output(started: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, *started]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for unbuffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        ended = subprocess.run(
            line,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env=environment | unbuffered,
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
    os.close(writing)


def test_an_error_stays_one_where_the_output_is_closed(started: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, *started, "evaluate", "--run", "nowhere"]
    ended = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: nowhere is not a run folder")


def test_version(started: list[str]) -> None:
    ended = run(*started, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"cllm4rec {cllm4rec.__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("evalute", "evaluate"), ("train", "pretrain"), ("Recommend", "recommend"), ("fine-tune", "finetune")],
)
def test_an_unknown_command_is_refused_with_the_nearest(typed: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"^'{typed}' is not a command; did you mean {nearest}\\?"):
        dispatch([typed, "--run", "run"])


@pytest.mark.parametrize("typed", ["x", "", "--run", "a\nb"])
def test_an_unknown_command_like_no_other_is_refused(started: list[str], typed: str) -> None:
    assert_refused(run(*started, typed), f"{typed!r} is not a command (cllm4rec --help lists the commands)")


@pytest.mark.parametrize("command", ["prepare", "finetune"])
def test_usage_is_the_line_as_typed(command: str, script: Path) -> None:
    typed = {
        f"cllm4rec {command}": [script, command],
        f"python -m cllm4rec {command}": [*MODULE, command],
        f"python -m cllm4rec.{command}": ["-m", f"cllm4rec.{command}"],
    }
    for usage, arguments in typed.items():
        assert run(*arguments, "--help").stdout.startswith(f"usage: {usage} --"), usage


@pytest.mark.parametrize(
    ("module", "typed"),
    [
        (None, "cllm4rec pretrain"),
        ("cllm4rec.__main__", "python -m cllm4rec pretrain"),
        ("cllm4rec.pretrain", "python -m cllm4rec.pretrain"),
    ],
)
def test_a_command_names_itself_as_typed(
    module: str | None, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if module is None else ModuleSpec(module, None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert started_as("pretrain") == typed


def test_texts_name_commands_and_not_their_modules() -> None:
    """In errors, advice and docstrings: `cllm4rec pretrain`."""
    module = re.compile(rf"\bcllm4rec\.({'|'.join(COMMANDS)})\b")
    for file in Path(cllm4rec.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not module.search(node.value), f"{file}, line {node.lineno}: {node.value}"


def test_a_mistake_ends_in_the_line_of_the_module(started: list[str], tmp_path: Path) -> None:
    flags = ("--interactions", tmp_path / "absent.csv", "--output", tmp_path / "data")
    ended = run(*started, "prepare", *flags)
    assert_refused(ended, "absent.csv")
    assert ended.stderr == run("-m", "cllm4rec.prepare", *flags).stderr


def test_prepare_writes_the_files_of_the_module(started: list[str], tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv")
    for folder, arguments in (("new", [*started, "prepare"]), ("expected", ["-m", "cllm4rec.prepare"])):
        flags = ("--interactions", "events.csv", "--output", folder, "--seed", "3")
        ended = run(*arguments, *flags, folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
    new, expected = (
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
        for folder in ("new", "expected")
    )
    assert len(expected) > 3
    assert new == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_are_imported_ends_a_command_in_silence(
    number: signal.Signals, started: list[str], popularity_workspace: Path, tmp_path: Path
) -> None:
    flags = ["--run", str(popularity_workspace / "run"), "--all", "--output", str(tmp_path / "lists.csv")]
    process = subprocess.Popen(
        [sys.executable, "-v", *started, "recommend", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert process.stderr is not None
    imports = iter(process.stderr.readline, "")
    assert any("import 'cllm4rec.commands.signals'" in line for line in imports)
    time.sleep(0.03)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_handled_before_the_commands_are_imported(number: signal.Signals) -> None:
    """Whatever the name of the script that calls `main`."""
    code = f"""
import os, sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "cllm4rec.commands.dispatch":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Interrupted())
from cllm4rec.commands.main import main
main()
"""
    line = [sys.executable, "-c", code]
    ended = subprocess.run(line, capture_output=True, timeout=60, check=False, preexec_fn=default_signals)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, b"", b"")


def test_flags_may_follow_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    """torchrun -m cllm4rec finetune -- --run RUN"""
    with pytest.raises(SystemExit) as ended:
        dispatch(["finetune", "--", "--help"])
    assert ended.value.code == 0
    assert "--run FOLDER" in capsys.readouterr().out


@pytest.mark.slow
def test_launchers_start_the_commands(popularity_workspace: Path, tmp_path: Path) -> None:
    command = (*MODULE, "recommend")
    flags = ("--run", popularity_workspace / "run", "--all", "--output")
    run_launched(1, *command, *flags, tmp_path / "alone.parquet")
    run_launched(2, *command, *flags, tmp_path / "accelerate.parquet")
    # Without `--`, torchrun takes --run for an abbreviation of its --run-path.
    run_launched(1, *TORCHRUN, *command, "--", *flags, tmp_path / "torchrun.parquet")
    alone, accelerate, torchrun = (
        pl.read_parquet(tmp_path / f"{name}.parquet").sort("user_id", "rank")
        for name in ("alone", "accelerate", "torchrun")
    )
    assert accelerate.equals(alone)
    assert torchrun.equals(alone)
