"""Wordings of RSLLM's question."""

from pathlib import Path

import numpy as np
import pytest

from cllm4rec import load, measure_choices
from cllm4rec.corpora.prompts import TEMPLATES
from experiments import wordings
from experiments.wordings import hits_of
from tests.support.commands import call
from tests.support.worlds import taste_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RSLLM before stage 2 on a small world."""
    folder = tmp_path_factory.mktemp("wordings")
    taste_dataset().save(folder / "data")
    data = ("--dataset", folder / "data")
    call("pretrain", "--system", "sasrec", *data, "--output", folder / "sasrec", "--epochs", 1)
    call(
        *("pretrain", "--system", "rsllm", *data, "--output", folder / "run"),
        *("--sequential", folder / "sasrec", "--backbone", "1x64", "--prompt", "text", "--epochs", 0),
    )
    return folder / "run"


def test_hits_are_those_of_validation_events_by_likelihood(run: Path) -> None:
    hits = hits_of(run, wordings.WORDINGS[0], draws=2)
    model = load(run)
    measured = measure_choices(model, model._source_dataset(), "validation", draws=2, by="likelihood")
    np.testing.assert_array_equal(hits, measured.per_user["hit_ratio@1"])


def test_another_wording_is_read_and_does_not_stay(run: Path) -> None:
    before = dict(TEMPLATES)
    first, bare = (hits_of(run, wording, draws=5) for wording in wordings.WORDINGS[:2])
    assert (first != bare).any()
    assert before == TEMPLATES


def test_runs_of_other_prompts_are_refused(run: Path) -> None:
    with pytest.raises(SystemExit, match="give a run of rsllm whose prompts name no candidates"):
        hits_of(run.parent / "sasrec", wordings.WORDINGS[0], draws=1)


def test_the_table_has_a_line_for_each_wording(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wordings.main(run, 1, wordings.WORDINGS[:2])
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == [*wordings.WORDINGS[:2]]
