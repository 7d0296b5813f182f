"""RecVAE against dense formulas and torch.distributions, and its alternating training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn import functional

from cllm4rec.models.autoencoders.base import AutoencoderRecommender
from cllm4rec.models.autoencoders.recvae import DenseEncoder, RecVAENet, composite_log_prior
from cllm4rec.training import loop
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.resume import ResumeFile, Stopped
from tests.support.autoencoders import CONFIG, autoencoder, batch_of, built, dense
from tests.support.interruption import StopAfter
from tests.support.worlds import taste_dataset


def network(model: AutoencoderRecommender) -> RecVAENet:
    assert isinstance(model.net, RecVAENet)
    return model.net


def posterior(encoder: DenseEncoder, vectors: Tensor) -> Normal:
    """The posterior from dense histories (B, n_items), as in the authors' code."""
    first, *norms = encoder.norms
    hidden = [
        first(functional.silu(functional.normalize(vectors) @ encoder.input.weight + encoder.input.bias))
    ]
    for layer, norm in zip(encoder.hidden, norms, strict=True):
        hidden.append(norm(functional.silu(layer(hidden[-1]) + sum(hidden))))
    mean, log_variance = encoder.latent(hidden[-1]).chunk(2, dim=1)
    return Normal(mean, (log_variance / 2).exp())


def prior(old: Normal) -> MixtureSameFamily:
    """The composite prior of each dimension."""
    means = torch.stack([torch.zeros_like(old.mean), old.mean, torch.zeros_like(old.mean)], dim=-1)
    wide = torch.full_like(old.mean, 10.0).exp().sqrt()
    deviations = torch.stack([torch.ones_like(old.mean), old.stddev, wide], dim=-1)
    weights = torch.tensor([3 / 20, 3 / 4, 1 / 10]).expand(means.shape)
    return MixtureSameFamily(Categorical(weights), Normal(means, deviations))


def test_the_composite_prior_is_a_mixture_of_three_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, mean, log_variance = (torch.randn(6, 5, generator=generator) * 2 for _ in range(3))
    expected = prior(Normal(mean, (log_variance / 2).exp())).log_prob(latent)
    torch.testing.assert_close(composite_log_prior(latent, mean, log_variance), expected)


def moved(net: RecVAENet) -> None:
    """Move the encoder away from the old one."""
    with torch.no_grad():
        for parameter in net.encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))


def test_the_loss_of_the_encoder_is_the_dense_likelihood_and_the_divergence_by_one_draw() -> None:
    model = built("recvae", dropout=0.0, gamma=0.02)
    net, batch = network(model).train(), batch_of(model)
    assert net.old_encoder is not None
    moved(net)
    torch.manual_seed(5)
    terms = net("encoder", batch)
    torch.manual_seed(5)
    vectors = dense(batch)
    encoded = posterior(net.encoder, vectors)
    latent = encoded.mean + torch.randn(encoded.mean.shape) * encoded.stddev
    nll = -(vectors * functional.log_softmax(net.output(latent), dim=1)).sum()
    with torch.no_grad():
        old = posterior(net.old_encoder, vectors)
    divergence = (encoded.log_prob(latent) - prior(old).log_prob(latent)).sum(1)
    expected = {"encoder": nll, "KL": (0.02 * vectors.sum(1) * divergence).sum()}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-4, msg=name)
    parameters = list(net.encoder.parameters())
    found, wanted = (
        torch.autograd.grad(sum(values.values(), torch.zeros(())), parameters) for values in (terms, expected)
    )
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-3)


def test_the_loss_of_the_decoder_is_the_likelihood_of_whole_histories() -> None:
    model = built("recvae", dropout=0.9)
    net, batch = network(model).train(), batch_of(model, 1)
    torch.manual_seed(5)
    terms = net("decoder", batch)
    torch.manual_seed(5)
    encoded = posterior(net.encoder, dense(batch))
    latent = encoded.mean + torch.randn(encoded.mean.shape) * encoded.stddev
    expected = -(dense(batch) * functional.log_softmax(net.output(latent), dim=1)).sum()
    assert terms.keys() == {"decoder"}
    torch.testing.assert_close(terms["decoder"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["encoder", "decoder"])
def test_an_objective_moves_its_own_weights_only(objective: str) -> None:
    model = built("recvae")
    net = network(model)
    moved(net)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    objectives = model.objectives(taste_dataset().train, "pretrain", CONFIG)
    chosen = [each for each in objectives if each.name == objective]
    loop.train(net, chosen, replace(CONFIG, epochs=1), make_accelerator())
    changed = {name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])}
    groups = {"encoder": "encoder.", "decoder": "output."}
    expected = {name for name in before if name.startswith(groups[objective])}
    # the steps of the decoder also make the encoder the old one
    old = {name for name in before if name.startswith("old_encoder.")} if objective == "decoder" else set()
    assert changed == expected | old


def test_an_epoch_trains_the_encoder_in_several_passes_and_then_the_decoder() -> None:
    model, train = autoencoder("recvae", encoder_passes=4), taste_dataset().train
    encoder, decoder = model.objectives(train, "pretrain", CONFIG)
    assert (encoder.name, decoder.name) == ("encoder", "decoder")
    n = len(decoder.corpus.selection(0))
    assert (len(encoder.corpus.selection(0)), n) == (4 * n, len(np.unique(train.interactions.users)))


@pytest.mark.parametrize("late", [2, 14])
def test_the_old_posterior_is_that_before_the_epochs_encoder_steps(late: int, tmp_path: Path) -> None:
    """15 steps of the encoder and 5 of the decoder an epoch; training stops in the second epoch."""
    model, resume_file = autoencoder("recvae"), ResumeFile(tmp_path / "state.safetensors")
    after: list[dict[str, Tensor]] = []

    def keep(record: object) -> None:
        after.append({name: p.detach().clone() for name, p in network(model).encoder.named_parameters()})

    # asked before each step, and at the beginning and the end of an epoch
    hooks = Hooks(keep, should_stop=StopAfter(22 + 1 + late))
    with pytest.raises(Stopped):
        model.fit_stage(taste_dataset(), "pretrain", CONFIG, hooks, resume_file=resume_file)
    description = resume_file.describe()
    assert description is not None
    assert (description.progress.epoch, description.progress.step) == (1, late)
    saved = load_file(resume_file.path)
    for name, expected in after[0].items():
        assert torch.equal(saved[f"now.old_encoder.{name}"], expected), name
        assert not torch.equal(saved[f"now.encoder.{name}"], expected), name


def test_a_saved_model_does_not_hold_the_old_encoder(tmp_path: Path) -> None:
    built("recvae").save(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"encoder", "output"}
