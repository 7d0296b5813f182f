"""Seeds and short histories in the command prepare."""

from pathlib import Path
from typing import Any

import pytest

from cllm4rec.data.dataset import Dataset
from tests.support.datasets import description_of
from tests.support.event_files import prepare_dataset
from tests.support.tables import refused, written


def test_users_with_fewer_than_three_events_are_counted_and_stay_in_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "ann,x,1\nbob,x,1\nbob,y,2\ncid,x,1\ncid,y,2\ncid,z,3\n"
    path = written(tmp_path / "e.csv", "user_id,item_id,timestamp\n" + rows)
    dataset = prepare_dataset(tmp_path, "--interactions", path, "--split", "leave-last-out")
    assert "users with fewer than 3 events, who stay whole in train: 2" in capsys.readouterr().out
    assert description_of(dataset).n_users_below_3_events == 2
    short = dataset.interactions.users != dataset.user_ids.index(["cid"])[0]
    assert dataset.part[short].tolist() == [0, 0, 0]


def test_filters_that_cannot_be_applied_are_named_as_arguments(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id\nu,a\n")
    assert refused(Dataset.from_frame, path, min_rating=3.0).startswith("`min_rating` needs a rating column")
    message = "`min_rating` has to be a finite number and `k_core` may not be negative"
    for wrong in ({"k_core": -1}, {"min_rating": float("nan")}, {"min_rating": float("-inf")}):
        assert message in refused(Dataset.from_frame, path, **wrong)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("name", ["seed", "shuffle_ties"])
def test_a_seed_that_is_negative_or_beyond_63_bits_is_refused(name: str, seed: int, tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id,timestamp\nu,a,1\nu,b,1\n")
    flag = f"--{name.replace('_', '-')}"
    assert f"{flag} is {seed}: " in refused(prepare_dataset, tmp_path, "--interactions", path, flag, seed)
    settings: dict[str, Any] = {name: seed}
    assert f"{name} is {seed}: it may be 0 to {2**63 - 1}" in refused(Dataset.from_frame, path, **settings)
    prepare_dataset(tmp_path, "--interactions", path, flag, 2**63 - 1)
