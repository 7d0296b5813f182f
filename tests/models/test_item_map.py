"""The map of items: its plane is that of NumPy, and neighbours are similar items."""

import numpy as np
import pytest
import torch

from cllm4rec import EASE, IALS, EASEConfig, IALSConfig
from cllm4rec.models.item_map import principal_plane
from tests.support.datasets import numbered_dataset


@pytest.mark.parametrize(("n", "d"), [(50, 6), (4, 9), (30, 2)])
def test_the_plane_is_that_of_singular_vectors(n: int, d: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(n).normal(size=(n, d)).astype(np.float32))
    positions, share = principal_plane(vectors)
    centred = vectors.double().numpy() - vectors.double().numpy().mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    expected /= np.abs(expected).max()
    np.testing.assert_allclose(np.abs(positions.numpy()), np.abs(expected), atol=1e-5)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-5)
    assert torch.equal(positions, principal_plane(vectors)[0])


def test_a_mirrored_direction_changes_no_sign() -> None:
    """Each axis is turned so that its largest coefficient is positive."""
    vectors = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    positions, share = principal_plane(vectors)
    torch.testing.assert_close(positions, vectors / 3)
    assert share == pytest.approx(1)


@pytest.mark.parametrize("vectors", [torch.zeros(5, 3), torch.ones(1, 4), torch.tensor([[1.0], [-1.0]])])
def test_vectors_without_a_plane_have_a_map(vectors: torch.Tensor) -> None:
    positions, share = principal_plane(vectors)
    assert positions.shape == (len(vectors), 2)
    assert torch.isfinite(positions).all()
    assert positions[:, 1].abs().max() == 0
    assert share == (1.0 if len(vectors) == 2 else 0.0)


def test_the_map_has_all_items_with_their_titles() -> None:
    model = IALS(IALSConfig(factors=2, regularization=1.0, alpha=1.0)).fit(numbered_dataset(titled=True))
    table, share = model.item_map()
    assert table.columns == ["item_id", "x", "y", "title"]
    assert table["item_id"].to_list() == model.item_ids.ids.to_list()
    assert table["title"].to_list() == [f"Title {item}" for item in table["item_id"]]
    assert table.select("x", "y").to_numpy().min() >= -1
    assert table.select("x", "y").to_numpy().max() <= 1
    assert share == pytest.approx(1)  # of two dimensions
    # Two dimensions lose nothing: the order of distances is that of cosines.
    positions = dict(zip(table["item_id"], table.select("x", "y").to_numpy(), strict=True))
    near = sorted(positions, key=lambda item: np.linalg.norm(positions[item] - positions[3]))
    assert near[1] == model.similar(3, 1)["item_id"][0]


def test_systems_without_item_vectors_have_no_map() -> None:
    model = EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset())
    with pytest.raises(
        ValueError, match="^ease has no item vectors, which `diversity`, `similar` and the map"
    ):
        model.item_map()


def test_the_history_of_a_user_has_all_events() -> None:
    dataset = numbered_dataset(titled=True)
    model = EASE(EASEConfig(regularization=10.0)).fit(dataset)
    history = model.history(4)
    items = dataset.interactions.history(int(dataset.user_ids.index([4])[0]))
    assert history["item_id"].to_list() == dataset.item_ids.names(items).to_list()
    assert history["title"].to_list() == [f"Title {item}" for item in history["item_id"]]
    assert model.history("4").equals(history)
    with pytest.raises(ValueError, match="user 'nobody' is not in the data"):
        model.history("nobody")
