"""What `measure_choices` and the command report of choices among candidates."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cllm4rec import evaluate, pretrain
from cllm4rec.data.candidates import title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure_choices
from cllm4rec.models.baselines.config import ItemKNNConfig
from cllm4rec.models.baselines.itemknn import ItemKNN
from tests.support.worlds import taste_dataset


class FixedChoice:
    """A system that chooses by a function of users and candidates, and scores nothing."""

    def __init__(self, choice: Any) -> None:
        self.choice = choice
        self.asked: list[np.ndarray] = []

    def keeping_vectors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        self.asked.append(candidates)
        return np.asarray(self.choice(users, candidates))


def small_dataset() -> Dataset:
    """120 users, 80 items, and the last event of each user held out."""
    return taste_dataset(2, 120, 80, 10, split="leave-last-out")


def by_draw(model: FixedChoice, n: int) -> np.ndarray:
    """Candidates of each of n draws, (n, n_users, n_candidates)."""
    return np.concatenate(model.asked).reshape(n, -1, model.asked[0].shape[1])


def test_hit_ratio_valid_ratio_and_standard_error_by_hand() -> None:
    dataset = small_dataset()
    held_out = dataset.test.interactions
    target = dict(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))

    def choice(users: np.ndarray, candidates: np.ndarray) -> list[int]:
        """Right for every fourth user, no answer for every third of the others, wrong for the rest."""
        columns = []
        for user, row in zip(users.tolist(), candidates, strict=True):
            right = row.tolist().index(target[user])
            columns.append(right if user % 4 == 0 else -1 if user % 3 == 0 else (right + 1) % len(row))
        return columns

    result = measure_choices(FixedChoice(choice), dataset, candidates=6, draws=3)
    hits = np.array([float(user % 4 == 0) for user in result.users])
    valid = np.array([float(user % 4 == 0 or user % 3 != 0) for user in result.users])
    assert result.metrics["hit_ratio@1"] == pytest.approx(hits.mean())
    assert result.metrics["valid_ratio"] == pytest.approx(valid.mean())
    assert result.metrics["standard_error"] == pytest.approx(hits.std(ddof=1) / np.sqrt(len(hits)))
    np.testing.assert_array_equal(result.per_user["hit_ratio@1"], hits)


def test_draws_differ_and_are_the_same_for_every_system_of_a_seed() -> None:
    dataset = small_dataset()
    models = [FixedChoice(lambda users, candidates: np.zeros(len(users), dtype=int)) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        measure_choices(model, dataset, candidates=6, draws=2, seed=seed)
    first, again, other = (by_draw(model, 2) for model in models)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (first != other).any()
    groups, known = title_groups(dataset.items), dataset.interactions
    users = dataset.test.interactions.users
    for draw in first:
        for user, row in zip(users, draw, strict=True):
            assert len(set(groups[row].tolist())) == 6
            assert len(set(row.tolist()) & set(known.history(user).tolist())) == 1, "the target alone"


def test_only_the_users_asked_for_are_measured() -> None:
    dataset = small_dataset()
    model = FixedChoice(lambda users, candidates: np.zeros(len(users), dtype=int))
    users = np.array([4, 7, 9])
    result = measure_choices(model, dataset, candidates=5, draws=1, users=users)
    assert result.users.tolist() == [4, 7, 9]
    assert len(model.asked[0]) == 3


def test_a_choice_without_scores_is_at_chance() -> None:
    dataset = small_dataset()
    model = FixedChoice(lambda users, candidates: candidates.argmin(1))
    result = measure_choices(model, dataset, candidates=5, draws=20)
    assert abs(result.metrics["hit_ratio@1"] - 0.2) < 4 * result.metrics["standard_error"] + 0.02


def test_choice_by_scores_takes_the_best_of_the_candidates() -> None:
    dataset = small_dataset()
    model = ItemKNN(ItemKNNConfig(neighbours=10, shrinkage=5.0)).fit(dataset.train)
    users = np.arange(20)
    generator = np.random.default_rng(0)
    sets = np.stack([generator.permutation(dataset.n_items)[:7] for _ in users])
    scores, order = model.score(users, dataset.train), dataset.tie_order
    keys = [[(scores[row, item], -order[item]) for item in items] for row, items in enumerate(sets)]
    expected = [row_keys.index(max(row_keys)) for row_keys in keys]
    assert model.choose(users, sets, dataset.train).tolist() == expected


@pytest.mark.parametrize(("candidates", "draws"), [(1, 5), (20, 0)])
def test_what_cannot_be_measured_is_refused(candidates: int, draws: int) -> None:
    dataset = small_dataset()
    with pytest.raises(ValueError, match="cannot be measured"):
        measure_choices(FixedChoice(None), dataset, candidates=candidates, draws=draws)


@pytest.mark.parametrize("name", ["candidates", "draws", "seed"])
@pytest.mark.parametrize("value", ["20", 20.0, None, [20]])
def test_numbers_that_are_not_whole_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is .*: give a whole number"):
        measure_choices(FixedChoice(None), small_dataset(), **{name: value})


def test_evaluate_prints_its_input_events_and_takes_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_dataset().save(tmp_path / "data")
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    pretrain.main(["--system", "popularity", "--dataset", data, "--output", run])
    dataset = Dataset.load(tmp_path / "data")
    capsys.readouterr()
    flags = ["--run", run, "--json", str(tmp_path / "r.json")]
    for part, input_parts in (("test", "training and validation"), ("validation", "training")):
        evaluate.main([*flags, "--split", part])
        assert f"input: {input_parts} events" in capsys.readouterr().out
        assert json.loads((tmp_path / "r.json").read_text())["input"] == input_parts
    evaluate.main(
        [*flags, "--candidates", "8", "--draws", "3", "--seed", "5", "--per-user", str(tmp_path / "u.csv")]
    )
    printed = capsys.readouterr().out
    assert "among 8 candidates" in printed
    assert "3 draws of them averaged (seed 5)" in printed
    rows = pl.read_csv(tmp_path / "u.csv")
    result = json.loads((tmp_path / "r.json").read_text())
    metrics, (low, high) = result["metrics"], result["intervals"]["hit_ratio@1"]
    half_width = f"{(high - low) / 2:.4f}".lstrip("0")
    lines = printed.splitlines()
    start = next(row for row, line in enumerate(lines) if line.startswith("  "))
    expected = [["hit_ratio@1", f"{metrics['hit_ratio@1']:.4f}".lstrip("0"), f"±{half_width}"]]
    assert [line.split() for line in lines[start : start + 2]] == [
        *expected, ["valid_ratio", "1.0000", "±.0000"],
    ]  # fmt: skip
    assert lines[start].index(".") == lines[start + 1].index(".")
    assert metrics["standard_error"] > 0
    assert "standard_error" not in printed
    assert rows["hit_ratio@1"].mean() == pytest.approx(metrics["hit_ratio@1"])
    assert len(rows) == len(dataset.test.interactions)
    with pytest.raises(ValueError, match="--candidates"):
        evaluate.main([*flags, "--by", "likelihood"])
    with pytest.raises(ValueError, match="popularity chooses by scores"):
        evaluate.main([*flags, "--by", "likelihood", "--candidates", "8"])
