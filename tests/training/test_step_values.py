"""Values that are computed once a step: how often, and that gradients are those of every micro-batch."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training import batching, loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import make_accelerator
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.step_values import computed_once, once_a_step
from tests.support.systems import new_system
from tests.support.worlds import taste_dataset


def test_a_value_is_computed_once_and_its_gradient_is_the_sum() -> None:
    weight, calls = torch.tensor([2.0, 3.0], requires_grad=True), []

    def squared() -> Tensor:
        calls.append(1)
        return weight**2

    with once_a_step(True) as values:
        for factor in (1.0, 10.0):
            (factor * computed_once("squared", squared)).sum().backward()
        assert weight.grad is None
        values.backward()
    assert len(calls) == 1
    assert weight.grad is not None
    assert weight.grad.tolist() == [44.0, 66.0]  # 2 w (1 + 10)


@pytest.mark.parametrize("is_shared", [True, False])
def test_without_a_step_or_a_gradient_it_is_computed_each_time(is_shared: bool) -> None:
    weight, calls = torch.tensor([2.0], requires_grad=True), []

    def doubled() -> Tensor:
        calls.append(1)
        return 2 * weight

    computed_once("doubled", doubled).backward()
    with once_a_step(is_shared) as values:
        with torch.no_grad():
            computed_once("doubled", doubled)
        computed_once("doubled", doubled).backward()
        computed_once("doubled", doubled).backward()
        values.backward()
    assert len(calls) == 2 + (1 if is_shared else 2)
    assert weight.grad is not None
    assert weight.grad.tolist() == [6.0]


def test_steps_of_several_parts_read_texts_once_and_learn_as_in_one_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, n_read, weights = taste_dataset(), list[int](), []
    added = TextEmbeddings.forward

    def counted(embeddings: TextEmbeddings, rows: Tensor | None = None) -> Tensor:
        n_read[-1] += 1
        return added(embeddings, rows)

    monkeypatch.setattr(TextEmbeddings, "forward", counted)
    config = TrainConfig(batch_size=16, averaging=0.0)
    for free_padding in (1 << 20, 0):  # one part, and several
        monkeypatch.setattr(batching, "FREE_PADDING", free_padding)
        model, accelerator = new_system("cllm4rec", item_text="words"), make_accelerator()
        assert isinstance(model, NeuralRecommender)
        model.build(dataset.train, config)
        objective = model.objectives(dataset.train, model.stages[-1], config)[-1]
        batches = list(batching.micro_batches(objective, 0, range(3), config, accelerator))
        assert (max(map(len, batches)) > 1) == (free_padding == 0)
        run = TrainingRun(model.net.train(), config, accelerator, None, loop.NO_LIMITS)
        for parts in batches:
            n_read.append(0)
            run.step(objective.name, parts, stop=False)
        weights.append({name: value.detach().clone() for name, value in run.weights.items()})
    assert n_read == [1] * len(n_read)
    assert len(n_read) == 6
    for parameter, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][parameter], rtol=0, atol=2e-5, err_msg=parameter)
        if parameter.endswith("words"):
            assert value.abs().max() > 1e-4
