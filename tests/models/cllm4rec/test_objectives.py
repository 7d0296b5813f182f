"""The objectives against the Hugging Face model itself, the readout by hand, the warm-up, and what a system may look at."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import LlamaConfig
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec import evaluate, pretrain, recommend
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.backbone import load_backbone
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec import CLLM4RecNet
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.models.neural import make_accelerator
from cllm4rec.models.popularity import Popularity
from cllm4rec.text.content import ContentCorpus, content_documents
from cllm4rec.text.corpora import Corpus
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions, RecommendationCorpus, fill, prompt_batch
from cllm4rec.text.prompts import Template
from cllm4rec.text.ragged import Ragged
from cllm4rec.text.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Objective

Batch = dict[str, Tensor]
MUTUAL, PRIOR = 0.7, 0.3  # far from each other, from 1 and from the defaults


@cache
def small_world() -> Dataset:
    """Nine users with events in all three parts and texts of every kind; the tenth has one training event and no other."""
    generator = np.random.default_rng(5)
    rows = [{"user_id": "u9", "item_id": "i3", "part": "train", "review_text": "one book is enough"}]
    for user in range(9):
        parts = ["train"] * (4 + user % 4) + ["validation"] * 2 + ["test"] * (2 + user % 2)
        for item, part in zip(generator.choice(16, len(parts), replace=False), parts, strict=True):
            review = f"user {user} thinks book {item} is {'good' if item % 2 else 'rather long'}"
            rows.append({"user_id": f"u{user}", "item_id": f"i{item}", "part": part, "review_text": review})
    items = [{"item_id": f"i{item}", "title": f"the {item}th book of sand"} for item in range(16)]
    users = [{"user_id": f"u{user}", "biography": f"reads {user} books a week"} for user in range(10)]
    return Dataset.from_frame(pl.DataFrame(rows), pl.DataFrame(items), pl.DataFrame(users))


def pairs(dataset: Dataset) -> set[tuple[int, int]]:
    return set(zip(dataset.interactions.users.tolist(), dataset.interactions.items.tolist(), strict=True))


# ------------------------------------------------------------------------------------------------- what may be looked at


class Recorder:
    """A scorer that notes what it is given. An item's score is the worth of the part its event is of, 0 without one."""

    def __init__(self, **worth: float) -> None:
        self.worth = worth
        self.asked: list[tuple[np.ndarray, Dataset]] = []

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        self.asked.append((users, seen))
        scores = np.zeros((small_world().n_users, small_world().n_items), dtype=np.float32)
        for part, worth in self.worth.items():
            events = small_world().only(part).interactions
            scores[events.users, events.items] = worth
        return scores[users]

    def method(self) -> Callable[..., np.ndarray]:
        """`_score` to put in the place of a system's own."""
        return lambda system, users, known, seen: self.score(users, seen)


def test_measure_shows_the_scorer_the_seen_events_and_not_the_masked_ones() -> None:
    world, scorer = small_world(), Recorder(train=4, validation=3, test=1)
    seen, masked = world.only("train"), world.only("train", "validation")
    result = measure(scorer, seen, world.test, masked, batch_size=4)
    assert len(scorer.asked) > 1
    assert all(given is seen for _, given in scorer.asked)
    np.testing.assert_array_equal(np.concatenate([users for users, _ in scorer.asked]), result.users)
    assert result.metrics["mrr"] == 1, "items of training and validation do not stand before those held out"
    assert result.metrics["ndcg@100"] == 1


def test_measure_masks_the_seen_events_where_no_others_are_named() -> None:
    world, scorer = small_world(), Recorder(train=4, validation=3, test=1)
    result = measure(scorer, world.train, world.test)
    assert all(given is world.train for _, given in scorer.asked)
    np.testing.assert_allclose(result.per_user["mrr"], 1 / 3, err_msg="two validation items stand before those held out")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("popularity")
    small_world().save(folder / "data")
    pretrain.main(["--system", "popularity", "--dataset", str(folder / "data"), "--output", str(folder / "run")])
    return folder / "run"


def evaluated(run: Path, scorer: Recorder, split: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Each user's values as the command writes them."""
    monkeypatch.setattr(Popularity, "_score", scorer.method())
    evaluate.main(["--run", str(run), "--split", split, "--per-user", str(folder / "users.parquet")])
    return pl.read_parquet(folder / "users.parquet")


def test_evaluate_at_test_takes_training_events_in_and_masks_training_and_validation(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Recorder(train=4, validation=3, test=1)
    values = evaluated(run_folder, scorer, "test", tmp_path, monkeypatch)
    assert scorer.asked
    for _, given in scorer.asked:
        assert pairs(given) == pairs(small_world().train)
    assert len(values) == 9
    assert (values["mrr"] == 1).all()
    assert (values["ndcg@100"] == 1).all()


def test_evaluate_at_validation_takes_training_events_in_and_masks_them_alone(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Recorder(train=4, test=3, validation=1)
    values = evaluated(run_folder, scorer, "validation", tmp_path, monkeypatch)
    assert scorer.asked
    for _, given in scorer.asked:
        assert pairs(given) == pairs(small_world().train)
    users = small_world().user_ids.index(values["user_id"].to_list())
    n_test = np.diff(small_world().test.interactions.indptr)[users]
    np.testing.assert_allclose(values["mrr"].to_numpy(), 1 / (1 + n_test), err_msg="test events are not known yet")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[Recommender, Recorder]:
    """A system, and the recorder that scores in its place."""
    model, recorder = Popularity().fit(small_world().train), Recorder(train=4, validation=3, test=2)
    monkeypatch.setattr(model, "_score", lambda users, known, seen: recorder.score(users, seen))
    return model, recorder


def test_recommend_shows_the_model_all_events_and_masks_them_all(recorded: tuple[Recommender, Recorder]) -> None:
    model, recorder = recorded
    world, users = small_world(), np.arange(small_world().n_users)
    lists = model.recommend(users, world, k=world.n_items)
    ((asked, given),) = recorder.asked
    np.testing.assert_array_equal(asked, users)
    assert pairs(given) == pairs(world) == pairs(world.train) | pairs(world.validation) | pairs(world.test)
    listed = {(int(user), int(item)) for user, row in zip(users, lists.items, strict=True) for item in row if item >= 0}
    everything = {(user, item) for user in users.tolist() for item in range(world.n_items)}
    assert listed == everything - pairs(world)


def test_recommend_in_batches_shows_the_model_all_events(recorded: tuple[Recommender, Recorder]) -> None:
    model, recorder = recorded
    for part in model.recommend_batches(np.arange(small_world().n_users), small_world(), k=3, batch_size=4):
        assert not pairs(small_world()) & {(u, i) for u, row in zip(part.users, part.items, strict=True) for i in row}
    assert len(recorder.asked) == 3
    assert all(pairs(given) == pairs(small_world()) for _, given in recorder.asked)


def test_recommend_with_another_mask_still_shows_the_model_what_is_seen(recorded: tuple[Recommender, Recorder]) -> None:
    model, recorder = recorded
    world, users = small_world(), np.arange(small_world().n_users)
    lists = model.recommend(users, world.train, k=world.n_items, masked=world.validation)
    assert all(given is world.train for _, given in recorder.asked)
    listed = {(int(user), int(item)) for user, row in zip(users, lists.items, strict=True) for item in row if item >= 0}
    everything = {(user, item) for user in users.tolist() for item in range(world.n_items)}
    assert listed == everything - pairs(world.validation)


def test_the_recommend_command_shows_the_model_all_events_and_lists_none_of_them(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, world = Recorder(train=4, validation=3, test=2), small_world()
    monkeypatch.setattr(Popularity, "_score", recorder.method())
    recommend.main(["--run", str(run_folder), "--all", "--k", "4", "--output", str(tmp_path / "lists.parquet")])
    assert recorder.asked
    assert all(pairs(given) == pairs(world) for _, given in recorder.asked)
    table = pl.read_parquet(tmp_path / "lists.parquet")
    users, items = world.user_ids.index(table["user_id"].to_list()), world.item_ids.index(table["item_id"].to_list())
    assert len(table) == 4 * world.n_users
    assert not pairs(world) & set(zip(users.tolist(), items.tolist(), strict=True))


# ------------------------------------------------------------------------------------- objectives against a dense reference


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama whose output words are not its input words, with weights large enough for its layers to matter."""
    folder = tmp_path_factory.mktemp("llama")
    texts = ["a user has interacted with an item and will interact with", *small_world().item_texts["title"]]
    tokenizer = train_bpe(texts, vocabulary=300)
    described = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(described, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build(folder: Path, **settings: Any) -> tuple[CLLM4RecNet, ExtendedTokenizer]:
    """A network on the small Llama, tuned in full; its two tables are random and unlike."""
    world = small_world()
    config = CLLM4RecConfig(backbone=str(folder), tune="full", mutual=MUTUAL, prior=PRIOR, **settings)
    backbone, words = load_backbone(config)
    assert not torch.equal(backbone.words, backbone.word_head)
    assert backbone.id_scale > 2, "for a forgotten factor to show"
    net = CLLM4RecNet(backbone, config, world.n_users, world.n_items)
    generator = torch.Generator().manual_seed(7)
    for table in (net.collaborative, net.content):
        table.fill(0.15 * torch.randn(table.whole().shape, generator=generator))
    return net, ExtendedTokenizer(words, backbone.n_words, world.n_users, world.n_items)


def batch_of(objective: str, tokenizer: ExtendedTokenizer, targets: str = "unseen") -> Batch:
    """A batch of real examples, some without their user token, whose mutual weights are all different."""
    train = small_world().train
    options = HistoryOptions(128, user_dropping=0.3, mask_share=0.5, targets=targets, seed=2)
    if objective == "content":
        documents = content_documents(train, tokenizer)
        batch = ContentCorpus(documents, tokenizer, options, 10**6).batch(np.arange(0, len(documents), 3), 0)
    else:
        corpus = {"collaborative": CollaborativeCorpus, "recommend": RecommendationCorpus}[objective]
        batch = corpus(train.interactions, tokenizer, options).batch(np.arange(10), 0)
    generator = torch.Generator().manual_seed(3)
    return batch | {"weights": 0.1 + torch.rand(len(batch["ids"]), generator=generator)}


class Reference:
    """The same in float64, example by example, unpadded, by the Hugging Face model itself and one dense log-softmax."""

    def __init__(self, net: CLLM4RecNet, objective: str, batch: Batch) -> None:
        self.n_words, self.n_users, self.id_scale = net.backbone.n_words, net.n_users, net.backbone.id_scale
        self.model = copy.deepcopy(net.backbone.model).double().eval()
        tables = [table.whole().double().requires_grad_(True) for table in (net.collaborative, net.content)]
        self.own, self.other = tables[::-1] if objective == "content" else tables
        self.as_set = objective == "recommend" and net.config.attention == "bidirectional"
        self.pooled = net.config.readout == "pooled"
        self.rows = [tokens[mask] for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)]
        self.nll = self._recommend(batch) if objective == "recommend" else self._next(batch, objective == "content")
        ids = torch.cat([tokens[tokens >= self.n_words] for tokens in self.rows]) - self.n_words
        own, other, weights = self.own.detach()[ids], self.other.detach()[ids], batch["weights"].double()
        assert len(ids.unique()) < len(ids), "an ID that occurs twice counts twice"
        self.mutual = MUTUAL / 2 * sum(w * (a - b).square().sum() for w, a, b in zip(weights, own, other, strict=True))
        self.prior = PRIOR / 2 * sum(w * a.square().sum() for w, a in zip(weights, own, strict=True))
        zero = torch.zeros_like(self.own)
        self.mutual_slope = zero.index_add(0, ids, MUTUAL * weights[:, None] * (own - other))
        self.prior_slope = zero.index_add(0, ids, PRIOR * weights[:, None] * own)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States (L, d) of one example and the model's own logits of words (L, n_words)."""
        is_id = tokens >= self.n_words
        words = self.model.get_input_embeddings()(tokens.masked_fill(is_id, 0))
        ids = self.own[(tokens - self.n_words).clamp(min=0)] * self.id_scale
        further: dict[str, Tensor] = {}
        if self.as_set:  # everything sees everything, and all items stand at the place of the first one
            is_item, places = tokens >= self.n_words + self.n_users, torch.arange(len(tokens))
            if is_item.any():
                first, last = int(places[is_item].min()), int(places[is_item].max())
                places = torch.where(is_item, first, torch.where(places > last, places - (last - first), places))
            everything = torch.zeros(1, 1, len(tokens), len(tokens), dtype=torch.float64)  # added to the logits
            further = {"attention_mask": everything, "position_ids": places[None]}
        embedded = torch.where(is_id[:, None], ids, words)[None]
        answer = self.model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False, **further)
        return answer.hidden_states[-1][0], answer.logits[0]

    def _next(self, batch: Batch, content: bool) -> Tensor:
        answers = [self.states(tokens) for tokens in self.rows]
        total, width = torch.zeros((), dtype=torch.float64), batch["tokens"].shape[1]
        for read, target in zip(batch["read"].tolist(), batch["targets"].tolist(), strict=True):
            row, place = divmod(read, width)
            token = target if content else self.n_words + self.n_users + target
            assert self.rows[row][place + 1] == token, "a state answers for the token behind it"
            states, words = answers[row]
            logits = words[place] if content else self.own[self.n_users :] @ states[place]
            total = total - logits.log_softmax(0)[target]
        return total

    def _recommend(self, batch: Batch) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, tokens in enumerate(self.rows):
            states, _ = self.states(tokens)
            is_item = tokens >= self.n_words + self.n_users
            state = by_hand(states[is_item]) if self.pooled and is_item.any() else states[-1]
            logits = self.own[self.n_users :] @ state
            left_out = batch["shown"][batch["shown_rows"] == row]
            logits = logits.index_fill(0, left_out, -torch.inf)
            total = total - logits.log_softmax(0)[batch["targets"][batch["rows"] == row]].sum()
        return total


def by_hand(states: Tensor) -> Tensor:
    """The mean of states (n, d), with mean 0 and variance 1 over its d numbers."""
    mean = states.mean(0)
    return (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt()


CASES = [
    ("content", {}, "unseen"),
    ("collaborative", {}, "unseen"),
    ("recommend", {"readout": "pooled", "attention": "causal"}, "unseen"),
    ("recommend", {"readout": "last", "attention": "causal"}, "masked"),
    ("recommend", {"readout": "pooled", "attention": "bidirectional"}, "all"),
    ("recommend", {"readout": "last", "attention": "bidirectional"}, "unseen"),
]
each_case = pytest.mark.parametrize(
    ("objective", "settings", "targets"), CASES, ids=["-".join([one, *settings.values(), how]) for one, settings, how in CASES]
)


def close(one: Tensor, reference: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one.double() - reference).norm() <= tolerance * reference.norm()) and bool(reference.norm() > 0)


@each_case
def test_every_loss_term_equals_that_of_the_language_model_itself(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    net, tokenizer = build(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    terms = net(objective, batch)
    assert set(terms) == {objective, "mutual", "prior"}
    assert terms[objective].item() == pytest.approx(reference.nll.item(), rel=1e-5)
    assert terms["mutual"].item() == pytest.approx(float(reference.mutual), rel=1e-5)
    assert terms["prior"].item() == pytest.approx(float(reference.prior), rel=1e-5)


@each_case
def test_every_loss_term_moves_the_table_of_its_objective_and_never_the_other(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    """Content moves z^c, the others z^l; and by the gradients of the reference."""
    net, tokenizer = build(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    own, other = (net.content, net.collaborative) if objective == "content" else (net.collaborative, net.content)
    (expected,) = torch.autograd.grad(reference.nll, [reference.own])
    slopes = {objective: expected, "mutual": reference.mutual_slope, "prior": reference.prior_slope}
    terms = net(objective, batch)
    for name, slope in slopes.items():
        places = [*own.parameters(), *other.parameters()]
        users, items, *untouched = torch.autograd.grad(terms[name], places, allow_unused=True, retain_graph=True)
        assert untouched == [None, None], name
        assert close(torch.cat([users.to_dense(), items]), slope, 1e-4), name


@each_case
def test_only_content_moves_the_output_words_of_a_tuned_backbone(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    net, tokenizer = build(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    places = [net.backbone.word_head, net.backbone.words]
    head, words = torch.autograd.grad(net(objective, batch)[objective], places, allow_unused=True)
    model = reference.model
    places = [model.get_output_embeddings().weight, model.get_input_embeddings().weight]
    expected_head, expected_words = torch.autograd.grad(reference.nll, places, allow_unused=True)
    assert close(words, expected_words, 1e-4), "the words of the prompt are read by every objective"
    if objective == "content":
        assert close(head, expected_head, 1e-4)
    else:
        assert head is None
        assert expected_head is None


def test_strengths_of_zero_leave_the_likelihood_alone(llama: Path) -> None:
    net, tokenizer = build(llama)
    net.config = replace(net.config, mutual=0.0, prior=0.0)
    for objective in ("content", "collaborative", "recommend"):
        terms = net(objective, batch_of(objective, tokenizer))
        assert terms["mutual"].item() == terms["prior"].item() == 0
        assert terms[objective].item() > 0


# ------------------------------------------------------------------------------------------------- where the user is read

HISTORIES: list[list[int]] = [[3, 1, 12], [], [5], [0, 2, 4, 6, 8, 10, 11], [], [7, 9]]
KEEPS_USER = np.array([True, True, False, True, True, False])


def history_batch(tokenizer: ExtendedTokenizer) -> Batch:
    """Prompts of many lengths, two of them without items and two without their user token."""
    items = Ragged.of([np.array(history, dtype=np.int64) for history in HISTORIES])
    template = Template.compile("recommend", tokenizer)
    return prompt_batch(tokenizer, *fill(template, tokenizer, np.arange(len(HISTORIES)), items, KEEPS_USER))


def backbone_states(net: CLLM4RecNet, batch: Batch, as_set: bool) -> list[Tensor]:
    """What the backbone gives for each prompt, padding cut off."""
    items = batch["tokens"] >= net.backbone.n_words + net.n_users
    states = net.backbone(batch["tokens"], batch["mask"], net.collaborative, items & batch["mask"] if as_set else None)
    return [own[mask] for own, mask in zip(states, batch["mask"], strict=True)]


both_attentions = pytest.mark.parametrize("attention", ["causal", "bidirectional"])


@torch.no_grad()
@both_attentions
@pytest.mark.parametrize("readout", ["pooled", "auto"])
def test_pooled_readout_is_the_normalised_mean_of_the_item_states(readout: str, attention: str, llama: Path) -> None:
    net, tokenizer = build(llama, readout=readout, attention=attention)
    batch = history_batch(tokenizer)
    users = net.user_states(batch)
    assert users.shape == (len(HISTORIES), net.backbone.width)
    for row, states in enumerate(backbone_states(net, batch, attention == "bidirectional")):
        tokens = batch["tokens"][row][batch["mask"][row]]
        places = [tokens.tolist().index(tokenizer.item(item)) for item in HISTORIES[row]]
        if places:
            torch.testing.assert_close(users[row], by_hand(states[places]), rtol=1e-5, atol=1e-5)
            assert abs(users[row].mean().item()) < 1e-5
            assert users[row].var(correction=0).item() == pytest.approx(1, abs=1e-2)


@torch.no_grad()
@both_attentions
def test_pooled_readout_of_a_prompt_without_items_is_the_state_at_its_last_token(attention: str, llama: Path) -> None:
    net, tokenizer = build(llama, readout="pooled", attention=attention)
    batch = history_batch(tokenizer)
    users, states = net.user_states(batch), backbone_states(net, batch, attention == "bidirectional")
    empty = [row for row, history in enumerate(HISTORIES) if not history]
    assert len(empty) == 2
    for row in empty:
        torch.testing.assert_close(users[row], states[row][-1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@both_attentions
def test_last_readout_is_the_state_at_the_last_real_token(attention: str, llama: Path) -> None:
    net, tokenizer = build(llama, readout="last", attention=attention)
    batch = history_batch(tokenizer)
    assert not batch["mask"][:, -1].all(), "some prompts are padded"
    users = net.user_states(batch)
    for row, states in enumerate(backbone_states(net, batch, attention == "bidirectional")):
        torch.testing.assert_close(users[row], states[-1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_before_finetuning_the_user_is_read_causally_at_the_last_token(llama: Path) -> None:
    net, tokenizer = build(llama, readout="pooled", attention="bidirectional")
    batch = history_batch(tokenizer)
    users = net.user_states(batch, finetuned=False)
    for row, states in enumerate(backbone_states(net, batch, as_set=False)):
        torch.testing.assert_close(users[row], states[-1], rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- warm-up


class Slope(nn.Module):
    """A loss that is linear in its parameters: Adam's every step is then the learning rate, against the gradient's sign."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.tensor([0.5, -0.5, 0.25], dtype=torch.float64))
        self.two = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
        self.slopes = torch.tensor([3.0, -2.0, 1.0, -4.0], dtype=torch.float64)

    def values(self) -> Tensor:
        return torch.cat([self.one, self.two])

    def forward(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        return {objective: (self.values() * self.slopes.to(self.one.device)).sum() * len(batch["targets"])}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"one": [self.one], "two": [self.two]}

    def diagnostics(self) -> dict[str, float]:
        return {}


class Numbers(Corpus):
    """A corpus of examples without content."""

    def __init__(self, n: int) -> None:
        self.lengths = np.ones(n, dtype=np.int64)

    def selection(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths))

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        return {"targets": torch.from_numpy(examples), "mask": torch.ones(len(examples), 1, dtype=torch.bool)}


@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_steps_grow_linearly_over_the_warm_up_and_are_the_learning_rate_from_then_on(
    warmup_steps: int, accumulation: int
) -> None:
    rate, net = 0.01, Slope()
    config = TrainConfig(
        epochs=7, batch_size=8, accumulation=accumulation, learning_rate=rate, warmup_steps=warmup_steps, patience=99
    )
    points = [net.values().detach().cpu().clone()]
    accelerator, objectives = make_accelerator(), [Objective("line", Numbers(8))]  # one step an epoch

    def note(record: Any) -> None:
        points.append(net.values().detach().cpu().clone())

    loop.train(net, objectives, config, accelerator, None, lambda: None, note)
    steps = torch.stack(points).diff(dim=0)
    sizes = torch.tensor([rate * min(1, (step + 1) / max(1, warmup_steps)) for step in range(7)], dtype=torch.float64)
    torch.testing.assert_close(steps, -sizes[:, None] * net.slopes.sign(), rtol=1e-5, atol=1e-9)


def test_the_warm_up_counts_steps_of_all_objectives_and_epochs_and_is_the_same_for_all_parameters() -> None:
    rates: list[list[float]] = []

    def note(optimizer: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])

    objectives = [Objective("first", Numbers(6)), Objective("second", Numbers(3), from_epoch=1)]
    config = TrainConfig(epochs=2, batch_size=3, learning_rate=0.1, warmup_steps=5, patience=99)
    hook = register_optimizer_step_pre_hook(note)
    try:
        loop.train(Slope(), objectives, config, make_accelerator(), None, lambda: None, lambda record: None)
    finally:
        hook.remove()
    assert len(rates) == 2 + 3 + 3
    np.testing.assert_allclose(rates, [[rate, rate] for rate in (0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1)])


def test_the_learning_rate_of_the_command_is_the_peak_after_its_warm_up(tmp_path: Path) -> None:
    """Through `python -m cllm4rec.pretrain`'s main: no other learning rate comes in between."""
    rates: list[float] = []

    def note(optimizer: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
        rates.extend({group["lr"] for group in optimizer.param_groups})

    small_world().save(tmp_path / "data")
    hook = register_optimizer_step_pre_hook(note)
    try:
        arguments = ["--epochs", "2", "--batch-size", "5", "--learning-rate", "0.004", "--warmup-steps", "4"]
        pretrain.main(["--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "run"), *arguments])
    finally:
        hook.remove()
    np.testing.assert_allclose(rates[:5], [0.001, 0.002, 0.003, 0.004, 0.004])
    assert set(rates[4:]) == {0.004}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["pretrain"]["training"]["warmup_steps"] == 4
