"""Comparators of the benchmarks compute what they claim to."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import build_backbone
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.batching import micro_batches
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import choices, gpu, item_loss, one_pass, plain, top_k
from experiments.benchmarks.backbones import save_backbone
from experiments.benchmarks.measurement import extra_memory, side_by_side
from experiments.benchmarks.objectives import untrained
from experiments.benchmarks.results import Row, Settings
from tests.support.backbones import save_backbone as save_small_model
from tests.support.rsllm import small_dataset


def test_beam_search_finds_the_likeliest_answers_and_their_probabilities() -> None:
    """With as many beams as answers, all are found, each with the summed log-probability of its tokens."""
    backbone, _ = build_backbone(BackboneConfig(), ["some words to learn from"], seed=0)
    with torch.no_grad():
        for p in backbone.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    backbone.eval()
    answers = [np.array(tokens) for tokens in ([5, 6, 0], [5, 7, 8, 0], [9, 0], [5, 6, 7, 0], [0])]
    trie = one_pass.Trie(answers)
    prompts, table = torch.tensor([[3, 4, 5], [8, 9, 2]]), torch.zeros(1, backbone.width)
    leaves, scores = one_pass.beam_search(backbone, prompts, table, trie)
    assert scores.isfinite().sum(1).tolist() == [5, 5]
    for row, prompt in enumerate(prompts):
        expected = []
        for answer in answers:
            text = torch.cat([prompt, torch.from_numpy(answer)])[None]
            with torch.no_grad():
                states = backbone(text, torch.ones_like(text, dtype=torch.bool), table)[0]
                words = (states[len(prompt) - 1 : -1] @ backbone.output_embeddings.T).log_softmax(-1)
            expected.append(words[torch.arange(len(answer)), torch.from_numpy(answer)].sum().item())
        np.testing.assert_allclose(scores[row, :5], sorted(expected, reverse=True), rtol=1e-4)
        assert len(set(leaves[row, :5].tolist())) == 5


def test_the_dense_loss_is_the_same_loss() -> None:
    assert item_loss.difference(n_items=3000, width=8) < 1e-5
    given = item_loss.inputs(50, 4)
    assert item_loss.dense(**given).item() == pytest.approx(multinomial_nll(**given).item(), rel=1e-5)


def test_plain_networks_and_softmax_equal_those_of_the_package() -> None:
    backbone, _ = build_backbone(BackboneConfig(), ["some words to learn from"], seed=0)
    torch.nn.init.normal_(backbone.model.transformer.h[0].attn.c_proj.weight)
    backbone.eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(backbone.n_text_tokens + 9, (4, 6), generator=generator)
    table = torch.randn(9, backbone.width, generator=generator)
    targets = torch.randint(9, (24,), generator=generator)
    with torch.no_grad():
        states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table).flatten(0, 1)
        found = plain.states_of(backbone, tokens.flatten(), 4, table)
        torch.testing.assert_close(found, states, rtol=1e-5, atol=1e-5)
    given = (states, table, torch.arange(24), targets)
    assert float(plain.nll(*given)) == pytest.approx(float(multinomial_nll(*given)), rel=1e-5)


@pytest.mark.parametrize("system", [CLLM4Rec, RSLLM])
def test_a_plain_step_trains_the_same_parameters_as_a_step_of_the_package(
    system: type[CLLM4Rec] | type[RSLLM],
) -> None:
    world = taste_world(4, n_users=40, n_items=30, n_events=10)
    train = Dataset.from_frame(world.events, world.items, split="random").train
    model = CLLM4Rec(CLLM4RecConfig(item_text="none")) if system is CLLM4Rec else RSLLM()
    if isinstance(model, RSLLM):
        model.trained_base = SASRec().build(train)
    form = plain.PlainRSLLM if isinstance(model, RSLLM) else plain.PlainCLLM4Rec
    model.build(train)
    for stage in model.stages:
        for objective in model.objectives(train, stage, TrainConfig()):
            [step] = micro_batches(objective, 1, [0], TrainConfig(), Accelerator(cpu=True))
            other = form(model.net)
            other(objective.name, step).backward()
            model.net.zero_grad()
            for batch, _ in step:
                torch.stack(list(model.net(objective.name, batch).values())).sum().backward()
            groups = [
                {
                    name.removeprefix("net.").split(".")[0]
                    for name, p in net.named_parameters()
                    if p.grad is not None
                }
                for net in (model.net, other)
            ]
            assert groups[0] == groups[1], f"{stage}, {objective.name}"


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_the_floating_point_operations_of_a_step_are_counted_as_pytorch_does(
    tune: str, tmp_path: Path
) -> None:
    """A single example needs no padding. Eager attention also computes the masked half."""
    world = taste_world(4, n_users=40, n_items=30, n_events=10)
    train = Dataset.from_frame(world.events, world.items, split="random").train
    shape = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=300)
    backbone = save_backbone(tmp_path, train.item_texts["title"], shape)
    config = CLLM4RecConfig(backbone=backbone, tune=tune, start="random", item_text="none", dtype="float32")
    model = CLLM4Rec(config)
    model.build(train)
    for stage in model.stages:
        model.net.backbone.model.set_attn_implementation("eager")
        for objective in model.objectives(train, stage, TrainConfig()):
            batch = next(objective.corpus.batches([np.array([0])], 1, [0]))
            length = batch.n_tokens
            with FlopCounterMode(display=False) as counter:
                torch.stack(list(model.net(objective.name, batch).values())).sum().backward()
            unseen = 3 * 4 * 32 * 2 * length * (length - 1) / 2
            needed = gpu.needed_flops(model.net, objective.name, [[(batch, 1.0)]])
            is_content = objective.name == "content"
            n_states, n_classes = plain.n_states(batch), 300 if is_content else train.n_items
            # PyTorch does not count products that are added in place: the gradients of states and of classes.
            in_place = 2 * n_states * n_classes * 32 * (1 if is_content and tune == "frozen" else 2)
            counted = counter.get_total_flops() - unseen + in_place
            assert counted < needed < 1.04 * counted, "biases and norms are counted as multiplications"


def test_gpu_rows_are_measured_or_said_to_be_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = taste_world(4, n_users=40, n_items=30, n_events=10)
    train = Dataset.from_frame(world.events, world.items, split="random").train
    given = Settings(tmp_path, True, tmp_path, 1)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=300)
    backbone, device = (
        save_backbone(tmp_path / "backbone", train.item_texts["title"], config),
        torch.device("cpu"),
    )
    with torch.compiler.set_stance("force_eager"):
        rows = gpu.training(given, train, backbone, "full", Accelerator(cpu=True), gpu.gemm_rate(64, device))
    rows.append(gpu.scoring_row(train, backbone))
    rows += gpu.loss_rows("cllm4rec", 64, 500, device)
    assert all(row.value is not None and row.value > 0 for row in rows)
    assert {row.question for row in rows} <= {row.question for row in gpu.not_run()}
    if not torch.cuda.is_available():
        gpu.main(given)
        assert capsys.readouterr().out.count("not run") == len(gpu.not_run())
        assert {row["met"] for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]} == {None}


def test_loops_over_users_give_the_lists_of_the_package(tmp_path: Path) -> None:
    """Also before the adapters are merged, here into other weights than zero."""
    dataset = small_dataset()
    config = RSLLMConfig(backbone=str(save_small_model(tmp_path)), tune="lora", dtype="float32")
    model = untrained(RSLLM(config), dataset.train)
    for name, parameter in model.net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.net.eval()
    users, backbone = np.arange(6), model.net.backbone
    plain = partial(choices.whole_pass, choices.as_trained(backbone.model))
    separate = choices.loop_lists(plain, model, users, dataset.seen)
    model.merge_adapters()
    for read in (partial(choices.whole_pass, backbone.model), choices.careful_pass):
        assert np.array_equal(choices.loop_lists(read, model, users, dataset.seen), separate)
    lists = [lists.items for lists in model.rank_batches(users, dataset.seen, choices.K)]
    assert np.array_equal(np.concatenate(lists), separate)


def test_lists_of_the_benchmark_are_those_of_a_full_product() -> None:
    states, items, ties = top_k.vectors(30, 5000)
    assert torch.equal(top_k.lists(states, items, ties), (states @ items.T).topk(top_k.K).indices)


def allocate(mebibytes: int) -> Callable[[], np.ndarray]:
    """A function that fills so much memory; at module level, as another process imports it."""
    return lambda: np.ones(mebibytes * 2**17)


def test_extra_memory_is_what_a_function_takes() -> None:
    assert 90 < extra_memory(allocate, 100) < 130


def test_times_and_targets_by_hand() -> None:
    calls: list[str] = []
    found = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3, "in turn; the first call of each is not counted"
    assert set(found) == {"a", "b"}
    for value, at_most, met in ((0.9, True, True), (1.1, True, False), (0.9, False, False)):
        assert Row("", "", "", value, 1.0, at_most).met == met
    assert Row("", "", "", None, 1.0, True).met is None
