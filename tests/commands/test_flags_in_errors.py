"""Settings in errors become flags, and the user's names and values stay as they are."""

import ast
from pathlib import Path

import pytest

import cllm4rec
from cllm4rec.commands.failures import name_flags
from cllm4rec.messages import printable, shorten
from tests.support.commands import refusal

FLAGS = {"--users", "--users-file", "--columns", "--seed"}


@pytest.mark.parametrize(
    "value",
    ["a`users`b", "a `users` b", "`users`", "it's `users`",
     'say "`users`"', "both ' and \" `users`", "a\\' `users`",
     "`users`, " * 40],
)  # fmt: skip
def test_settings_in_quoted_values_stay(value: str) -> None:
    quoted = shorten(repr(value))
    printed = name_flags(f"the users' events: {quoted}: give `users` or {value.encode()!r}, `seed`", FLAGS)
    assert printed == f"the users' events: {quoted}: give --users or {value.encode()!r}, --seed"


@pytest.mark.parametrize("argument", ["{}", "--users-file={}"])
def test_settings_in_names_of_files_stay(argument: str) -> None:
    path = "/some `users` of/it's `columns`.txt"
    typed = [argument.format(path), "'", "`"]
    for name in (path, "it's `columns`.txt", "/other/some `users` of"):
        printed = name_flags(f"{name}: give `users`, '`seed`' or `columns`", FLAGS, typed)
        assert printed == f"{name}: give --users, '`seed`' or --columns"


def test_settings_in_names_of_columns_stay() -> None:
    message = f"the table has {printable('`seed`')}, {printable('a `users` b')}: give `columns`"
    assert name_flags(message, FLAGS) == "the table has '`seed`', 'a `users` b': give --columns"


@pytest.mark.parametrize("user", ["a`users`b", "a `users` b", "`users`"])
def test_commands_print_ids_and_files_as_they_are(
    user: str, popularity_workspace: Path, tmp_path: Path
) -> None:
    flags = ("--run", popularity_workspace / "run")
    refused = refusal("recommend", *flags, "--users", user)
    assert f"user '{user}' is not in the data" in refused
    assert refused.endswith("give a table of their events with --histories instead")
    file = tmp_path / f"of {user}" / f"{user}.txt"
    assert f"{file}: there is no such file" in refusal("recommend", *flags, "--users-file", file)


def test_commands_print_columns_and_files_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "a `users` b.csv"
    table.write_text("a `columns` b,`items`\nx,y\n")
    message = refusal("prepare", "--interactions", table, "--output", tmp_path / "data")
    advice = "name the right ones with --columns user_id=NAME,item_id=NAME"
    expected = f"the table has 'a `columns` b', '`items`'; {advice}"
    assert "a `users` b.csv: no column for user_id: " in message
    assert message.endswith(expected)


def texts_of(module: ast.Module) -> list[str]:
    """The texts of a module that are no docstrings; `x` replaces values in f-strings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    pieces: set[int] = set()
    texts = []
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            pieces |= {id(piece) for piece in node.values}
            values = [str(piece.value) if isinstance(piece, ast.Constant) else "x" for piece in node.values]
            texts.append("".join(values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings | pieces:
                texts.append(node.value)
    return texts


def test_no_text_of_the_package_is_printed_with_backticks() -> None:
    package = Path(str(cllm4rec.__file__)).parent
    files = [file for file in package.rglob("*.py") if file.name != "failures.py"]
    texts = [text for file in files for text in texts_of(ast.parse(file.read_text())) if "`" in text]
    assert len(texts) > 30
    assert [text for text in texts if "`" in name_flags(text, FLAGS)] == ["`"] * 2, (
        "one in messages.py, one in the service"
    )
