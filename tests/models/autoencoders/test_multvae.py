"""Mult-VAE against dense formulas and torch.distributions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional

from cllm4rec.corpora.history_sets import HistorySets, history_sets
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.autoencoders.base import HistoryLayer
from cllm4rec.models.autoencoders.multvae import AnnealedBatch, MultVAENet
from tests.support.autoencoders import N_ITEMS, autoencoder, batch_of, built, dense
from tests.support.worlds import taste_dataset


def some_sets() -> HistorySets:
    """Histories of 3, 0, 1 and 20 items."""
    generator = np.random.default_rng(0)
    lists = [generator.choice(N_ITEMS, n, replace=False) for n in (3, 0, 1, 20)]
    return history_sets(Ragged.from_lists(lists))


def network(**settings: Any) -> MultVAENet:
    net = built("multvae", **settings).net
    assert isinstance(net, MultVAENet)
    return net


def posterior(net: MultVAENet, vectors: Tensor) -> Normal:
    """The posterior from dense histories (B, n_items)."""
    hidden = torch.tanh(functional.normalize(vectors) @ net.input.weight + net.input.bias)
    mean, log_variance = (hidden @ net.latent.weight.T + net.latent.bias).chunk(2, dim=1)
    return Normal(mean, (log_variance / 2).exp())


def logits(net: MultVAENet, latent: Tensor) -> Tensor:
    hidden = torch.tanh(latent @ net.hidden.weight.T + net.hidden.bias)
    return hidden @ net.output.weight.T + net.output.bias


def test_the_first_layer_is_linear_in_normalised_dense_histories() -> None:
    layer, sets = HistoryLayer(N_ITEMS, 7), some_sets()
    expected = functional.normalize(dense(sets)) @ layer.weight + layer.bias
    found = layer(sets, dropout=0.0)
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape)
    gradients = [
        torch.autograd.grad((output * direction).sum(), [layer.weight, layer.bias])
        for output in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_dropout_leaves_items_out_and_scales_up_the_others() -> None:
    layer, sets = HistoryLayer(N_ITEMS, N_ITEMS), some_sets()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(N_ITEMS))
        layer.bias.zero_()
    torch.manual_seed(0)
    draws = torch.stack([layer(sets, dropout=0.75) for _ in range(400)]).detach()
    full = functional.normalize(dense(sets))
    assert set((draws / full).nan_to_num().unique().round(decimals=4).tolist()) == {0.0, 4.0}
    assert float((draws.mean(0) / full)[dense(sets) > 0].mean()) == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(layer.eval()(sets, dropout=0.75).detach(), full)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_the_loss_is_the_dense_likelihood_and_the_annealed_divergence(epoch: int) -> None:
    """The weight of the divergence rises over half of the four epochs."""
    model = built("multvae", dropout=0.0, beta=0.3)
    net, batch = model.net.train(), batch_of(model, epoch=epoch)
    assert isinstance(net, MultVAENet)
    torch.manual_seed(5)
    terms = net("history", batch)
    torch.manual_seed(5)
    vectors = dense(batch)
    encoded = posterior(net, vectors)
    latent = encoded.mean + torch.randn(encoded.mean.shape) * encoded.stddev
    nll = -(vectors * functional.log_softmax(logits(net, latent), dim=1)).sum()
    prior = Normal(torch.zeros_like(latent), 1.0)
    divergence = kl_divergence(Independent(encoded, 1), Independent(prior, 1)).sum()
    expected = {"history": nll, "KL": 0.3 * min(1, epoch / 2) * divergence}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-5, msg=name)
    parameters = list(net.parameters())
    found, wanted = (
        torch.autograd.grad(sum(values.values(), torch.zeros(())), parameters) for values in (terms, expected)
    )
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


def test_without_annealing_the_weight_is_beta_from_the_start() -> None:
    batch = batch_of(built("multvae", beta=0.3, annealing=0.0))
    assert isinstance(batch, AnnealedBatch)
    assert float(batch.beta) == pytest.approx(0.3)


def test_scores_are_the_logits_of_the_posterior_mean() -> None:
    model, dataset = built("multvae"), taste_dataset()
    net, users = model.net, np.arange(9)
    assert isinstance(net, MultVAENet)
    sets = history_sets(dataset.train.interactions.histories(users))
    expected = logits(net, posterior(net, dense(sets)).mean).detach()
    np.testing.assert_allclose(model.score(users, dataset.train), expected, rtol=1e-4, atol=1e-5)


def test_a_first_loss_is_near_that_of_uniform_predictions() -> None:
    batch = batch_of(autoencoder("multvae"))
    nll = network()("history", batch)["history"].detach() / batch.n_targets
    assert float(nll) == pytest.approx(math.log(N_ITEMS), rel=0.1)
