"""Users' mistakes: each ends in one error line that names the value."""

import shutil
from pathlib import Path

import pytest

from tests.support.commands import assert_refused, call, refusal, refusal_line, run_process


def test_a_missing_file_ends_in_one_line(tmp_path: Path) -> None:
    ended = run_process("prepare", "--interactions", tmp_path / "none.csv", "--output", tmp_path / "data")
    assert_refused(ended, "none.csv", "no such file")
    assert not (tmp_path / "data").exists()


def test_a_missing_flag_ends_in_one_line() -> None:
    assert_refused(run_process("prepare", "--output", "data"), "--interactions")


def test_an_unknown_flag_ends_in_one_line(workspace: Path, tmp_path: Path) -> None:
    ended = run_process(
        "prepare", "--interactions", workspace / "events.csv", "--output", tmp_path / "data", "--kcore", 5
    )
    assert_refused(ended, "--kcore")
    assert not (tmp_path / "data").exists()


def test_an_unknown_user_ends_in_one_line(workspace: Path) -> None:
    assert_refused(run_process("recommend", "--run", workspace / "run", "--users", "7,nobody"), "nobody")


def test_an_existing_run_folder_ends_in_one_line(workspace: Path) -> None:
    before = (workspace / "run" / "run.json").read_bytes()
    ended = run_process("pretrain", "--dataset", workspace / "data", "--output", workspace / "run")
    assert_refused(ended, "exists", "new folder")
    assert (workspace / "run" / "run.json").read_bytes() == before


def test_users_and_all_together_end_in_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal_line(capsys, monkeypatch, "recommend", "--run", workspace / "run", "--users", "7", "--all")
    assert "--users" in line
    assert "--all" in line


def test_a_json_file_in_no_folder_ends_in_one_line(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--run", workspace / "run", "--json", tmp_path / "none" / "r.json")
    assert "none" in refusal_line(capsys, monkeypatch, "evaluate", *flags)


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("recommend", "--run {run}", "--users A,B"),
        ("recommend", "--run {run} --users-file {folder}/none.txt", "none.txt: there is no such file"),
        ("recommend", "--run {run} --users-file {folder}/empty.txt", "empty.txt"),
        ("recommend", "--run {run} --all --k 0", "--k is 0"),
        ("recommend", "--run {run} --all --output {folder}/lists.xlsx", "lists.xlsx"),
        ("recommend", "--run {run} --all --output {folder}/none/lists.csv", "there is no folder"),
        ("evaluate", "--run {folder}", "not a run folder"),
        ("evaluate", "--run {run} --per-user {folder}/none/u.csv", "there is no folder"),
        ("pretrain", "--dataset {folder} --output {folder}/new", "not a dataset folder"),
        ("pretrain", "--dataset {data} --output {folder}/empty.txt", "empty.txt is a file"),
        ("pretrain", "--dataset {data} --output {folder}/empty.txt/run", "empty.txt is a file"),
        ("pretrain", "--dataset {data} --output {folder}/new --learning-rate nan", "--learning-rate is nan"),
        ("pretrain", "--dataset {data} --output {folder}/new --max-minutes inf", "--max-minutes is inf"),
        ("pretrain", "--dataset {data} --output {folder}/new --seed -5", "--seed is -5"),
        ("pretrain", "--system magic --dataset {data} --output {folder}/new", "magic.*cllm4rec"),
        ("pretrain", "--dataset {data} --output {folder}/new --preset magic", "magic.*paper"),
        ("pretrain", "--dataset {data} --output {folder}/new --backbone {folder}", "backbone"),
        ("finetune", "--run {folder}/new2", "not a run folder"),
        ("prepare", "--interactions {folder}/events.csv --output {folder} --split none", "another one"),
        ("prepare", "--interactions {folder}/events.csv --output {folder}/prepared --split x.csv", "x.csv"),
        (
            "prepare",
            "--interactions {folder}/events.csv --output {folder}/new --min-rating 3",
            "rating column",
        ),
        (
            "prepare",
            "--interactions {folder}/events.csv --output {folder}/new --k-core 99",
            "nothing is left",
        ),
        ("prepare", "--interactions {folder}/items.csv --output {folder}/prepared", "user_id"),
    ],
)
def test_mistakes_are_errors_that_name_the_value(
    command: str, flags: str, message: str, workspace: Path
) -> None:
    (workspace / "empty.txt").write_text("")
    folders = {"folder": workspace, "run": workspace / "run", "data": workspace / "data"}
    filled = [flag.format(**folders) for flag in flags.split()]
    with pytest.raises(ValueError, match=message):
        call(command, *filled)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--system ease", "ease chooses --regularization on validation events and there are none"),
        (
            "--system itemknn --decay auto --shrinkage 1",
            "itemknn chooses --decay and --neighbours on validation events",
        ),
        (
            "--start title",
            "--start title needs titles of the items: prepare the dataset with a table of items",
        ),
        ("--system popularity --preset paper", "system popularity has no presets: leave --preset out"),
    ],
)
def test_training_that_lacks_data_is_refused_before_a_run_folder_is_made(
    flags: str, message: str, workspace: Path, tmp_path: Path
) -> None:
    tables = ("--interactions", workspace / "events.csv", "--split", "none")
    call("prepare", *tables, "--output", tmp_path / "data")
    folders = ("--dataset", tmp_path / "data", "--output", tmp_path / "run")
    assert message in refusal("pretrain", *folders, *flags.split())
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_preset_is_not_resumed_with_one(popularity_workspace: Path) -> None:
    flags = ("--output", popularity_workspace / "run", "--resume", "--preset", "paper")
    message = "is a run without a preset, not with paper: leave --preset out to resume it"
    assert refusal("pretrain", *flags).endswith(message)


def test_filters_that_the_data_do_not_allow_are_named(workspace: Path, tmp_path: Path) -> None:
    flags = ("--interactions", workspace / "events.csv", "--output", tmp_path / "data")
    reason = "needs a rating column, and the interactions have none"
    assert refusal("prepare", *flags, "--min-rating", 3) == f"--min-rating {reason}"
    assert refusal("prepare", *flags, "--preset", "paper") == f"--preset paper {reason}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\na,b\n,b\n", "expected an id: leave such rows out (--drop-incomplete does so)"),
        ("buyer,sku\na,b\n", "no column for user_id: "),
    ],
)
def test_a_table_without_ids_is_refused_with_the_flag_that_helps(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "e.csv").write_text(text)
    line = refusal("prepare", "--interactions", tmp_path / "e.csv", "--output", tmp_path / "data")
    assert message in line
    assert "from_frame" not in line
    assert ("; name the right ones with --columns user_id=NAME,item_id=NAME" in line) == text.startswith(
        "buyer"
    )


def test_what_is_replaced_is_named(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(workspace / "run", tmp_path / "run")
    with caplog.at_level("INFO"):
        call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    assert f"{tmp_path / 'run'}: replacing the existing finetuning" in caplog.text
    for _ in range(2):
        flags = ("--interactions", workspace / "events.csv", "--items", workspace / "events.csv")
        call("prepare", *flags, "--output", tmp_path / "data")
    printed = capsys.readouterr().out
    assert printed.count("replacing the existing dataset") == 1
    assert printed.count("events.csv: no column of texts") == 2


def test_a_choice_that_does_not_exist_is_an_error_that_names_those_there_are(workspace: Path) -> None:
    assert "validation" in refusal("evaluate", "--run", workspace / "run", "--split", "train")


def test_the_output_of_a_refused_command_can_be_used_by_the_corrected_one(
    workspace: Path, tmp_path: Path
) -> None:
    flags = ("--dataset", workspace / "data", "--output", tmp_path / "run", "--epochs", 1)
    with pytest.raises(ValueError, match="backbone"):
        call("pretrain", *flags, "--backbone", tmp_path / "none")
    call("pretrain", *flags)
    assert (tmp_path / "run" / "pretrain" / "model.json").is_file()


def test_an_error_of_the_library_names_the_flag(
    popularity_workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--dataset", popularity_workspace / "data", "--output", tmp_path / "new", "--batch-size", 0)
    line = refusal_line(capsys, monkeypatch, "pretrain", *flags)
    assert line == "error: --batch-size is 0: it may not be below 1"


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
@pytest.mark.parametrize(
    "command",
    ["prepare --interactions {0}/events.csv --output {1}",
     "prepare --interactions {0}/events.csv --output {1} --shuffle-ties",
     "pretrain --dataset {0}/data --output {1}", "pretrain --dataset {0}/data --output {1} --system ials",
     "pretrain --dataset {0}/data --output {1} --system sasrec", "evaluate --run {0}/run --candidates 5"],
)  # fmt: skip
def test_a_seed_that_is_negative_or_beyond_64_bits_is_refused(
    command: str, seed: int, popularity_workspace: Path, tmp_path: Path
) -> None:
    name, *flags = command.format(popularity_workspace, tmp_path / "new").split()
    flags += [] if flags[-1] == "--shuffle-ties" else ["--seed"]
    assert f"is {seed}: " in refusal(name, *flags, seed)
    assert not (tmp_path / "new").exists()


def test_the_largest_seed_is_taken(popularity_workspace: Path, tmp_path: Path) -> None:
    data = popularity_workspace / "data"
    flags = ("--regularization", 1, "--alpha", 1, "--iterations", 1, "--factors", 4)
    for number, seed in enumerate((0, 2**63 - 1)):
        run = tmp_path / str(number)
        call("pretrain", "--dataset", data, "--system", "ials", *flags, "--seed", seed, "--output", run)
        call("evaluate", "--run", run, "--candidates", 5, "--seed", seed)


@pytest.mark.parametrize(
    "line",
    ["recommend --all --k 10**30", "recommend --all --k 0", "evaluate --candidates 10**30",
     "evaluate --candidates 10**18", "evaluate --candidates 1", "evaluate --candidates 5 --draws 10**18",
     "evaluate --candidates 5 --draws 0",
     "pretrain --batch-size 10**30", "pretrain --accumulation 10**18", "pretrain --sampled 10**18",
     "pretrain --epochs -1", "pretrain --system sasrec --width 10**18",
     "pretrain --system sasrec --layers 10**18",
     "pretrain --system sasrec --length 10**18", "pretrain --system ials --factors 10**18",
     "prepare --min-rating nan", "prepare --min-rating inf", "prepare --k-core 10**30"],
)  # fmt: skip
def test_absurd_numbers_are_refused_in_one_line(
    line: str, popularity_workspace: Path, tmp_path: Path
) -> None:
    command, *flags = (str(10 ** int(word[4:])) if word.startswith("10**") else word for word in line.split())
    inputs = {
        "recommend": ["--run", popularity_workspace / "run"],
        "evaluate": ["--run", popularity_workspace / "run"],
        "pretrain": ["--dataset", popularity_workspace / "data", "--output", tmp_path / "new"],
        "prepare": ["--interactions", popularity_workspace / "events.csv", "--output", tmp_path / "new"],
    }
    assert flags[-1] in refusal(command, *inputs[command], *flags)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [["finetune", "--run"], ["finetune", "--resume", "--run"], ["pretrain", "--dataset", "x", "--output"]],
)
def test_a_folder_of_a_dataset_or_a_model_is_no_run(arguments: list[str], workspace: Path) -> None:
    line = refusal(*arguments, workspace / "data")
    assert line.endswith("data is the folder of a dataset (dataset.json), not of a run: name another one")
    line = refusal(*arguments, workspace / "run" / "pretrain")
    assert line.endswith("pretrain is the folder of a model (model.json), not of a run: name another one")
    line = refusal("evaluate", "--run", workspace / "run" / "pretrain")
    assert line.endswith("make one with cllm4rec pretrain; Python's cllm4rec.load reads it")
