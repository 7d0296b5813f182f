"""Answers in the turns of a chat template, with an end of two tokens."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.data.ragged import Ragged
from cllm4rec.models.rsllm.generation import generate
from cllm4rec.models.rsllm.recommender import RSLLM
from tests.support.backbones import save_backbone, set_values
from tests.support.rsllm import small_dataset, untrained

CHAT = "{% for turn in messages %}{{ turn.role + ':' + turn.content + eos_token + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RSLLM:
    """Random weights, large enough for answers to differ in likelihood."""
    folder = save_backbone(tmp_path_factory.mktemp("chat") / "model", titled=True)
    set_values(folder / "tokenizer_config.json", {"chat_template": CHAT})
    built = untrained(backbone=str(folder), tune="full", length=3, candidates=4)
    built.build(small_dataset().train)
    with torch.no_grad():
        for parameter in built.net.backbone.parameters():
            parameter.mul_(3)
    return built


def asked(model: RSLLM, user: int, candidates: np.ndarray, length: int = 3) -> Tensor:
    """The prompt of a user's newest items with candidates, tokens (L,)."""
    dataset = small_dataset()
    items = dataset.train.interactions.history(user)
    history = Ragged.from_lists([items[len(items) - length :]])
    prompts, _ = model.writer(dataset.items).fill(history, 200, Ragged.from_lists([candidates]))
    return torch.from_numpy(prompts.tokens[0])


def test_an_answer_is_the_assistants_turn(model: RSLLM) -> None:
    items, decode = small_dataset().items, model.tokenizer.text_tokenizer.decode
    prompt = asked(model, 3, np.array([4, 5]))
    text = decode(prompt[prompt < model.tokenizer.n_text_tokens])
    assert text.startswith("user:A user chose these items, the oldest first:")
    assert text.endswith(" chose next:<|end|>\nassistant:")
    (answer,) = model.writer(items).answers_of(np.array([7]))
    title = " ".join(items["title"][7].split()[:4])
    assert decode(answer) == f"{title}<|end|>\n", "no space before the title"
    assert len(model.tokenizer.document.end) == 2


@torch.no_grad()
def test_the_likeliest_answer_is_that_of_whole_turns(model: RSLLM) -> None:
    """The mean log-probability of title and end minus that without a history, each by a pass of its own."""
    dataset, backbone = small_dataset(), model.net.backbone.eval()
    table, writer = model.net.projected(), model.writer(dataset.items)
    users, sets = (
        np.arange(8),
        np.random.default_rng(0).permuted(np.tile(np.arange(60), (8, 1)), axis=1)[:, :4],
    )
    expected = []
    for user, candidates in zip(users.tolist(), sets, strict=True):
        prompts = [asked(model, user, candidates, length) for length in (3, 0)]
        gains = []
        for answer in map(torch.from_numpy, writer.answers_of(candidates)):
            means = []
            for prompt in prompts:
                tokens = torch.cat([prompt, answer])[None]
                states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0]
                log_p = torch.log_softmax(states @ backbone.output_embeddings.T, dim=-1)
                rows = torch.arange(len(prompt) - 1, tokens.shape[1] - 1)
                means.append(log_p[rows, answer].mean().item())
            gains.append(means[0] - means[1])
        expected.append(int(np.argmax(gains)))
    assert len(set(expected)) > 1
    assert model.choose(users, sets, dataset.train, "likelihood").tolist() == expected


@torch.no_grad()
def test_generation_stops_at_the_whole_end_only(model: RSLLM) -> None:
    prompt, table = asked(model, 2, np.array([1, 2])), model.net.projected()
    backbone, never = model.net.backbone.eval(), model.tokenizer.n_text_tokens
    tokens = generate(backbone, prompt, (never,), 8, table)
    assert len(tokens) == 8
    for n in (1, 2, 3):
        end = tokens[3 : 3 + n]
        first = next(start for start in range(8) if tokens[start : start + n] == end)
        assert generate(backbone, prompt, end, 8, table) == tokens[:first]
    assert generate(backbone, prompt, (tokens[3], never), 8, table) == tokens


def test_a_generated_title_is_compared_with_the_candidates_in_turns(
    model: RSLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, ends = small_dataset(), []
    answer = model.writer(dataset.items).answers_of(np.array([9]))[0].tolist()

    def answers(backbone: object, prompt: object, end: tuple[int, ...], *rest: object) -> list[int]:
        ends.append(end)
        return answer[: -len(end)]

    monkeypatch.setattr("cllm4rec.models.rsllm.answers.generate", answers)
    sets = np.array([[3, 9, 5, 6], [4, 5, 6, 7]])
    assert model.choose(np.array([0, 1]), sets, dataset.train, "generation").tolist() == [1, -1]
    assert ends == [model.tokenizer.document.end] * 2
