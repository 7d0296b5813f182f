"""What the benchmarks compare with does what it says: a slow or wrong comparator would flatter us."""

import numpy as np
import pytest
import torch

from cllm4rec.models.backbone import build_backbone
from cllm4rec.models.configs import BackboneConfig
from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import item_loss, one_pass, top_k
from experiments.benchmarks.common import Row, extra_memory, side_by_side


def test_beam_search_finds_the_likeliest_answers_and_their_probabilities() -> None:
    """With as many beams as there are answers, they are all found, each with the sum of its words' log-probabilities."""
    backbone, _ = build_backbone(BackboneConfig(), ["some words to learn from"], seed=0)
    with torch.no_grad():
        for p in backbone.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    backbone.eval()
    answers = [np.array(one) for one in ([5, 6, 0], [5, 7, 8, 0], [9, 0], [5, 6, 7, 0], [0])]
    trie = one_pass.Trie(answers)
    prompts, table = torch.tensor([[3, 4, 5], [8, 9, 2]]), torch.zeros(1, backbone.width)
    leaves, scores = one_pass.beam_search(backbone, prompts, table, trie)
    assert scores.isfinite().sum(1).tolist() == [5, 5]
    for row, prompt in enumerate(prompts):
        expected = []
        for answer in answers:
            text = torch.cat([prompt, torch.from_numpy(answer)])[None]
            with torch.no_grad():
                states = backbone(text, torch.ones_like(text, dtype=torch.bool), table)[0, len(prompt) - 1 : -1]
                words = (states @ backbone.word_head.T).log_softmax(-1)
            expected.append(words[torch.arange(len(answer)), torch.from_numpy(answer)].sum().item())
        np.testing.assert_allclose(scores[row, :5], sorted(expected, reverse=True), rtol=1e-4)
        assert len(set(leaves[row, :5].tolist())) == 5


def test_the_dense_loss_is_the_same_loss() -> None:
    assert item_loss.difference(n_items=3000, width=8) < 1e-5
    given = item_loss.inputs(50, 4)
    assert float(item_loss.dense(**given)) == pytest.approx(float(multinomial_nll(**given)), rel=1e-5)


def test_lists_of_the_benchmark_are_those_of_a_full_product() -> None:
    states, items, ties = top_k.vectors(30, 5000)
    assert torch.equal(top_k.lists(states, items, ties), (states @ items.T).topk(top_k.K).indices)


def allocate(mebibytes: int):  # type: ignore[no-untyped-def]  # in a process of its own, which has to find it
    """A function that fills so much memory."""
    return lambda: np.ones(mebibytes * 2**17)


def test_extra_memory_is_what_a_function_takes() -> None:
    assert 90 < extra_memory(allocate, 100) < 130


def test_times_and_targets_by_hand() -> None:
    calls: list[str] = []
    found = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3, "in turn, the first of each not counted"
    assert set(found) == {"a", "b"}
    assert [Row("", "", "", value, 1.0, at_most).met for value, at_most in ((0.9, True), (1.1, True), (0.9, False))] == [
        True,
        False,
        False,
    ]
