"""Help: it names every flag and imports nothing that trains."""

import subprocess
import sys
from dataclasses import fields

import pytest

from cllm4rec.commands.dispatch import COMMANDS
from cllm4rec.models import SYSTEMS, system_config
from tests.support.commands import call

FLAGS = {
    "prepare": "interactions items users columns item-columns user-columns item-attributes separator "
    "no-header sequences escape encoding max-unpacked-gib output preset min-rating k-core split "
    "split-column seed keep-all-items config",
    "pretrain": "dataset output resume system preset backbone tune start mutual epochs batch-size "
    "learning-rate max-minutes memory config",
    "finetune": "run dataset resume mask-share targets epochs batch-size accumulation patience seed memory "
    "config",
    "evaluate": "run split diversity json per-user dataset config",
    "recommend": "run users users-file all histories k output dataset allow deny where wish repeats "
    "diversity columns separator no-header sequences encoding config",
    "extend": "run output items interactions users forget dataset-output dataset backbone columns "
    "item-columns user-columns item-attributes separator no-header sequences encoding drop-incomplete config",
    "serve": "run host port token-file most-waiting dataset verify backbone config",
    "vectors": "dataset output encoder item-vectors depth fields raw config",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(command, "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for flag in FLAGS[command].split():
        assert f"--{flag}" in printed


@pytest.mark.parametrize("system", SYSTEMS)
def test_help_of_pretrain_names_the_settings_of_the_system(
    system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call("pretrain", "--system", system, "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for name in (field.name for field in fields(system_config(system))):
        assert f"--{name.replace('_', '-')}" in printed


def test_help_lists_settings_for_ablations_last(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("pretrain", "--system", "rsllm", "--help")
    printed = capsys.readouterr().out
    common, advanced = printed.split("\nadvanced:\n")
    for flag in ("--clip-norm", "--title-words", "--negatives", "--hard", "--temperature"):
        assert flag in advanced
        assert flag not in common
    assert "--learning-rate" in common


def test_help_of_finetune_lists_what_pretraining_fixed_last(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("finetune", "--help")
    changeable, fixed = capsys.readouterr().out.split("\nfixed by pretraining (")
    for name in system_config("cllm4rec").fixed_after_pretraining:
        assert f"  --{name.replace('_', '-')} " in fixed
        assert f"  --{name.replace('_', '-')} " not in changeable
    assert "--mask-share" in changeable


def test_help_names_values_chosen_on_validation_auto(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("pretrain", "--system", "ease", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "auto: chosen on validation events (default: auto)" in printed
    assert "auto: chosen on validation events (default: 1.0)" in printed


@pytest.mark.parametrize("flags", [["--help"], ["--epoch", "3"]], ids=["help", "a mistyped flag"])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_trains_is_imported_before_the_flags_are_right(command: str, flags: list[str]) -> None:
    heavy = {"torch", "transformers", "accelerate", "tokenizers"}
    code = f"""
import runpy, sys
sys.argv = ["cllm4rec", *{flags}]
try:
    runpy.run_module("cllm4rec.{command}", run_name="__main__")
except SystemExit as ended:
    print({heavy} & set(sys.modules), ended.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"set() {0 if flags == ['--help'] else 2}"
