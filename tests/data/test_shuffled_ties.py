"""Events of equal time are put in random order on request."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import shuffled_ties
from tests.support.datasets import description_of


def tied() -> pl.DataFrame:
    """40 users, each with 6 events on two days; item ids ascend within a day, as product ids do."""
    return pl.DataFrame(
        [
            {
                "user_id": f"u{user}",
                "item_id": f"{user % 7 + step:03d}",
                "timestamp": 100 * (step // 3),
                "position": step,
            }
            for user in range(40)
            for step in range(6)
        ]
    )


def sequence(events: pl.DataFrame, user: str) -> list[str]:
    """Items of a user in order."""
    return events.filter(pl.col("user_id") == user).sort("position")["item_id"].to_list()


def test_ties_are_shuffled_within_their_time_and_never_across() -> None:
    before, after = tied(), shuffled_ties(tied(), 0)
    moved = 0
    for user in before["user_id"].unique():
        old, new = sequence(before, user), sequence(after, user)
        assert sorted(new[:3]) == old[:3]
        assert sorted(new[3:]) == old[3:]
        moved += new != old
    assert moved > 30
    keys = ["user_id", "item_id"]
    assert after.sort(keys).drop("position").equals(before.sort(keys).drop("position"))


def test_an_order_of_ties_depends_on_the_seed_and_the_ids_alone() -> None:
    events = tied()
    zero, other = shuffled_ties(events, 0), shuffled_ties(events, 1)
    for changed in (
        events.sample(fraction=1.0, shuffle=True, seed=4),
        events.filter(pl.col("user_id") != "u5"),
    ):
        assert sequence(zero, "u3") == sequence(shuffled_ties(changed, 0), "u3")
    assert any(sequence(zero, f"u{user}") != sequence(other, f"u{user}") for user in range(40))
    first = [sequence(shuffled_ties(events, seed), "u0")[0] for seed in range(300)]
    assert all(70 < first.count(item) < 130 for item in ("000", "001", "002")), "each is first as often"


def test_an_event_without_a_time_is_tied_with_the_event_before_it() -> None:
    events = pl.DataFrame(
        {
            "user_id": ["a"] * 5,
            "item_id": list("vwxyz"),
            "timestamp": [None, 10, None, 20, 20],
            "position": [0, 1, 2, 3, 4],
        }
    )
    orders = {"".join(sequence(shuffled_ties(events, seed), "a")) for seed in range(200)}
    assert {order[3:] for order in orders} == {"yz", "zy"}
    assert {order[:3] for order in orders} == {"vwx", "vxw", "wvx", "wxv", "xvw", "xwv"}


def test_the_split_follows_the_shuffled_order_and_the_dataset_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tied().write_csv(tmp_path / "events.csv")
    flags = ["--interactions", str(tmp_path / "events.csv"), "--split", "leave-last-out"]
    prepare.main([*flags, "--output", str(tmp_path / "plain")])
    capsys.readouterr()
    prepare.main([*flags, "--output", str(tmp_path / "shuffled"), "--shuffle-ties", "0"])
    assert "random order (seed 0)" in capsys.readouterr().out
    plain, shuffled = Dataset.load(tmp_path / "plain"), Dataset.load(tmp_path / "shuffled")
    assert description_of(shuffled).split.shuffle_ties == 0
    expected = shuffled_ties(tied(), 0)
    for user in range(shuffled.n_users):
        name = str(shuffled.user_ids.ids[user])
        items = shuffled.item_ids.names(shuffled.interactions.history(user)).cast(pl.String)
        assert items.str.zfill(3).to_list() == sequence(expected, name)
    assert plain.test.fingerprint != shuffled.test.fingerprint


def test_ties_need_times() -> None:
    for events in (tied().drop("timestamp"), tied().with_columns(timestamp=pl.lit(None, dtype=pl.Int64))):
        with pytest.raises(ValueError, match="`shuffle_ties` needs a timestamp column"):
            Dataset.from_frame(events, split="random", shuffle_ties=0)
