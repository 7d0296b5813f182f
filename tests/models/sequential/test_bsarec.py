"""BSARec against plain numpy: the filter by its cosines, attention position by position."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cllm4rec.corpora.next_item import item_sequences
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.sequential.bsarec import BSARec, BSARecLayer, FrequencyFilter
from cllm4rec.models.sequential.config import BSARecConfig
from tests.support.worlds import cycle_dataset

Array = NDArray[np.float64]


def lowest_frequencies(windows: Array, n_kept: int) -> Array:
    """The projection of windows (L, d) on the cosines and sines of the lowest frequencies."""
    length = len(windows)
    angles = 2 * np.pi * np.outer(np.arange(length), np.arange(n_kept)) / length  # (L, n_kept)
    low = np.zeros_like(windows)
    for wave in [*np.cos(angles).T, *np.sin(angles).T]:
        if (energy := wave @ wave) > 1e-9:
            low += np.outer(wave, wave @ windows) / energy
    return low


def layer_norm(x: Array, norm: torch.nn.LayerNorm) -> Array:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps)
    return normed * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(x: Array, layer: torch.nn.Linear) -> Array:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


@pytest.mark.parametrize(("length", "kept"), [(7, 3), (8, 1), (8, 5), (6, 9)])
def test_the_filter_keeps_the_lowest_frequencies(length: int, kept: int) -> None:
    torch.manual_seed(0)
    module = FrequencyFilter(BSARecConfig(width=4, frequencies=kept)).double().eval()
    windows = np.random.default_rng(0).normal(size=(length, 4))
    low = lowest_frequencies(windows, min(kept, length // 2 + 1))
    weight = module.high_weight.detach().numpy()
    expected = layer_norm(windows + low + weight**2 * (windows - low), module.norm)
    for n_last in (length, 1):
        with torch.no_grad():
            found = module(torch.from_numpy(windows)[None], n_last)[0].numpy()
        np.testing.assert_allclose(found, expected[-n_last:], atol=1e-5)


def test_a_layer_mixes_the_filter_and_attention() -> None:
    torch.manual_seed(0)
    config = BSARecConfig(width=4, heads=2, frequencies=2, filter_share=0.6)
    layer = BSARecLayer(config).double().eval()
    windows = np.random.default_rng(1).normal(size=(5, 4))
    readable = np.tril(np.ones((5, 5), dtype=bool))
    readable[2:, 0] = False
    query, key, value = np.split(linear(windows, layer.attention.inputs), 3, axis=-1)
    mixed = np.zeros_like(windows)
    for head in (slice(0, 2), slice(2, 4)):
        for i in range(5):
            scores = np.exp(query[i, head] @ key[:, head].T / np.sqrt(2)) * readable[i]
            mixed[i, head] = scores / scores.sum() @ value[:, head]
    attended = layer_norm(windows + linear(mixed, layer.attention.output), layer.attention.norm)
    tensors = torch.from_numpy(windows)[None], torch.from_numpy(readable)[None, None]
    with torch.no_grad():
        filtered = layer.filter(tensors[0], 5)[0].numpy()
        hidden = 0.6 * filtered + 0.4 * attended
        expected = layer_norm(hidden + layer.feed_forward(torch.from_numpy(hidden)).numpy(), layer.norm)
        for n_last in (5, 2, 1):
            found = layer(*tensors, n_last)[0].numpy()
            np.testing.assert_allclose(found, expected[-n_last:], atol=1e-5)


def test_a_window_ends_with_the_newest_item_and_padding_is_not_attended() -> None:
    model = BSARec(BSARecConfig(length=6)).build(cycle_dataset().train)
    windows, readable = [], []
    model.net.layers[0].register_forward_pre_hook(
        lambda _, inputs: (windows.append(inputs[0]), readable.append(inputs[1]))[0]
    )
    with torch.no_grad():
        vectors = model.net.item_vectors()
        model.net.states(item_sequences(Ragged.from_lists([np.array([7, 2]), np.array([3])])))
        items = torch.zeros(2, 6, 64)
        items[0, 4], items[0, 5], items[1, 5] = vectors[7], vectors[2], vectors[3]
        expected = model.net.norm(items + model.net.position_embeddings)
    torch.testing.assert_close(windows[0], expected)
    assert readable[0][0, 0, 5].tolist() == [False] * 4 + [True] * 2
    assert readable[0][0, 0, 4].tolist() == [False] * 4 + [True, False]
    assert readable[0][1, 0, 1].tolist() == [False, True] + [False] * 4, "padding reads itself"


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="`heads` is 3: it has to divide `width`, 64"):
        BSARecConfig(heads=3)
    with pytest.raises(ValueError, match="filter_share"):
        BSARecConfig(filter_share=1.5)
