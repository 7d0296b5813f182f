"""How settings are chosen: grids one after the other, each from the best so far."""

from dataclasses import dataclass

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import one_stage
from cllm4rec.models.baselines.config import IALSConfig
from cllm4rec.models.baselines.ials import ALPHAS, IALS, RATIOS
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.one_stage import Grid
from cllm4rec.settings import setting
from tests.support.worlds import taste_dataset


@dataclass(frozen=True)
class Settings(SystemConfig):
    """Four open settings."""

    width: int | None = setting(None, auto=True, help="")
    depth: int | None = setting(None, auto=True, help="")
    decay: float | None = setting(None, auto=True, help="")
    text: str | None = setting(None, help="none is no choice")


class Searched(Popularity):
    """Its quality is a table of its settings; it records its fits."""

    config_class = Settings
    fits: list[tuple[int, int]]

    def grids(self, dataset: Dataset) -> tuple[Grid, ...]:
        widths = Grid(tuple({"width": width} for width in (1, 2, 3)), scoring={"decay": (1.0, 0.5)})
        depths = Grid(tuple({"depth": depth} for depth in (6, 5, 4)), start={"depth": 5})
        again = Grid(tuple({"width": width} for width in (3, 4)))
        return widths, depths, again

    def _fit(self, train: Dataset, settings: Settings) -> None:
        super()._fit(train, settings)
        self.fits.append((settings.width, settings.depth))


QUALITY = {(2, 5, 0.5): 0.5, (2, 4, 0.5): 0.6, (4, 4, 0.5): 0.7, (3, 5, 1.0): 0.4, (4, 6, 0.5): 0.9}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, float]]:
    """Settings that were measured."""
    tried: list[tuple[int, int, float]] = []

    class Measured:
        def __init__(self, model: Searched, *_: object, **__: object) -> None:
            tried.append((model.config.width, model.config.depth, model.config.decay))
            self.metrics = {"ndcg@100": QUALITY.get(tried[-1], 0.1)}

    monkeypatch.setattr(one_stage, "measure", Measured)
    return tried


def searched(**settings: object) -> Searched:
    model = Searched(Settings(**settings))
    model.fits = []
    return model.fit(taste_dataset())


def test_each_grid_starts_from_the_best_so_far(tried: list[tuple[int, int, float]]) -> None:
    model = searched()
    first = [(width, 5, decay) for width in (1, 2, 3) for decay in (1.0, 0.5)]
    assert tried == [*first, (2, 6, 0.5), (2, 4, 0.5), (3, 4, 0.5), (4, 4, 0.5)]
    assert model.config == Settings(width=4, depth=4, decay=0.5)
    assert model.fits == [(1, 5), (2, 5), (3, 5), (2, 6), (2, 4), (3, 4), (4, 4), (4, 4)]


def test_a_given_setting_is_in_no_grid(tried: list[tuple[int, int, float]]) -> None:
    assert searched(depth=6, decay=0.5).config == Settings(width=4, depth=6, decay=0.5)
    assert tried == [(1, 6, 0.5), (2, 6, 0.5), (3, 6, 0.5), (4, 6, 0.5)]


def test_of_equal_settings_the_first_is_chosen(tried: list[tuple[int, int, float]]) -> None:
    assert searched(decay=0.25).config == Settings(width=1, depth=5, decay=0.25)


def test_nothing_is_searched_where_all_is_given(tried: list[tuple[int, int, float]]) -> None:
    given = Settings(width=1, depth=2, decay=0.5)
    assert searched(**{name: getattr(given, name) for name in ("width", "depth", "decay")}).config == given
    assert not tried


@pytest.mark.parametrize(
    ("n_users", "n_items", "factors", "start"),
    [
        (5000, 2000, (64, 128, 256, 512, 1024), 128),
        (938, 1008, (64, 128, 256, 512), 128),
        (3000, 257, (64, 128, 256), 128),
        (3000, 256, (64, 128), 128),
        (30, 3000, (29,), 29),
        (1, 9, (1,), 1),
    ],
)
def test_the_factors_of_ials_stay_below_the_numbers_of_users_and_items(
    n_users: int, n_items: int, factors: tuple[int, ...], start: int
) -> None:
    dataset = Dataset.__new__(Dataset)
    object.__setattr__(dataset, "interactions", type("", (), {"n_users": n_users, "n_items": n_items}))
    _, grid = IALS().grids(dataset)
    assert tuple(choice["factors"] for choice in grid.fitting) == factors
    assert grid.start == {"factors": start}


def test_ials_chooses_its_factors_after_its_penalty_and_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = []

    def fit(model: IALS, train: Dataset, settings: object) -> None:
        fits.append((settings.factors, settings.regularization, settings.alpha))
        original(model, train, settings)

    original = IALS._fit
    monkeypatch.setattr(IALS, "_fit", fit)
    dataset = taste_dataset(3, n_users=150, n_items=140)
    model = IALS().fit(dataset)
    n_penalties = len(ALPHAS) * len(RATIOS)
    assert {factors for factors, *_ in fits[:n_penalties]} == {128}
    assert len(set(fits[:n_penalties])) == n_penalties
    assert [factors for factors, *_ in fits[n_penalties:-1]] == [64]
    assert fits[n_penalties][1:] == fits[-1][1:] == (model.config.regularization, model.config.alpha)
    assert np.isfinite(model.model.item_factors).all()


def test_the_penalties_of_ials_are_multiples_of_the_alpha_given() -> None:
    grid, _ = IALS(IALSConfig(alpha=1.5)).grids(taste_dataset())
    assert [choice["regularization"] for choice in grid.fitting] == [1.5 * ratio for ratio in RATIOS]
    assert {choice["alpha"] for choice in grid.fitting} == {1.5}
