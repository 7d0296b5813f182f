"""The bag model with CLLM4Rec's linear path."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from cllm4rec.models.cllm4rec.linear_path import LinearPath
from cllm4rec.models.pooling.bag import Bag
from experiments import bag_with_path
from tests.support.commands import call
from tests.support.systems import fitted
from tests.support.worlds import taste_dataset


def test_scores_are_those_of_the_bag_plus_the_weighted_path() -> None:
    bag, dataset = fitted("bag"), taste_dataset()
    assert isinstance(bag, Bag)
    dense = np.random.default_rng(0).normal(size=(dataset.n_items, dataset.n_items)).astype(np.float32)
    path, users = LinearPath.of(sp.csr_matrix(dense)), np.arange(dataset.n_users)
    path.weight.fill_(3.0)
    seen = dataset.train
    found = bag_with_path.BagWithPath(bag, path).score(users, seen)
    expected = bag.score(users, seen) + 3.0 * seen.interactions.matrix.toarray() @ dense
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_runs_of_two_systems_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, bag, run = (tmp_path / name for name in ("data", "bag", "run"))
    taste_dataset().save(data)
    call("pretrain", "--system", "bag", "--dataset", data, "--output", bag, "--epochs", 2)
    call("pretrain", "--dataset", data, "--output", run, "--epochs", 1, "--linear", "ease")
    call("finetune", "--run", run, "--epochs", 1)
    capsys.readouterr()
    bag_with_path.main(bag, run)
    printed = capsys.readouterr().out
    assert "| weight | validation ndcg@100 |" in " ".join(printed.split())
    assert "CLLM4Rec minus bag with path" in printed
    for arguments, line in (
        ((run, run), "--bag is a run of cllm4rec"),
        ((bag, bag), "without a linear path"),
    ):
        with pytest.raises(SystemExit, match=line):
            bag_with_path.main(*arguments)
