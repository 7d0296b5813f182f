"""Histories of RSLLM that are empty or do not fit, and what a second fit keeps of the first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.rsllm.states import history_states
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder
from tests.support.rsllm import QUICK, ragged, small_dataset, trained, untrained


def beginning(train: Dataset, lengths: dict[int, int]) -> Dataset:
    """The training events, of some users the first ones alone: user -> how many."""
    events = train.interactions
    position = np.arange(len(events)) - events.indptr[events.users]
    kept = position < np.array([lengths.get(user, len(events)) for user in events.users.tolist()])
    return replace(train, interactions=events.select(kept), part=train.part[kept])


def test_the_score_of_an_empty_history_is_zero_whoever_else_is_scored() -> None:
    model, seen = trained(), beginning(small_dataset().train, {0: 0, 1: 1})
    with model.scored_by("language"):
        assert (model.score(np.array([0]), seen) == 0).all()
        for users in ([0, 1], [0, 5], [7, 0]):
            scores = model.score(np.array(users), seen)
            assert (scores[users.index(0)] == 0).all()
            assert (scores[1 - users.index(0)] != 0).all()


def test_a_list_is_explained_by_the_only_item_of_a_history() -> None:
    model, seen = trained(), beginning(small_dataset().train, {0: 1})
    user = seen.user_ids.names(np.array([0]))[0]
    item = model.recommend([user], 1, dataset=seen)["item_id"][0]
    explanation = model.explain(user, item, dataset=seen)
    assert explanation.items["effect"].to_list() == [pytest.approx(explanation.score)]


def test_an_item_that_does_not_fit_into_the_context_is_an_empty_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained()
    titles = small_dataset().items["title"].to_list()
    long, short = 1, 0
    writer = PromptWriter(model.tokenizer, [titles[short].split()[0], *titles[1:]], "unified", 4)
    table = model.net.projected()
    alone = history_states(model.net, writer, ragged([short]), table)
    context = writer.n_beginning(candidates=False) + int(writer.item_tokens.lengths[long]) - 1
    monkeypatch.setattr(Backbone, "context", property(lambda _: context))
    states = history_states(model.net, writer, ragged([long], [short], [short, long]), table)
    assert (states[[0, 2]] == 0).all()
    np.testing.assert_allclose(states[1], alone[0], atol=1e-6)


def test_a_second_fit_takes_no_sequential_system_of_another_split(tmp_path: Path) -> None:
    world = taste_world(1, 30, 40, 8)
    one, other = (Dataset.from_frame(world.events, world.items, split="random", seed=seed) for seed in (0, 1))
    one.save(tmp_path / "data")
    run = RunFolder.create(tmp_path / "run", "sasrec", one, tmp_path / "data")
    SASRec().build(one).save(run.path / "pretrain")
    model = RSLLM(RSLLMConfig(sequential=str(run.path)))
    model.fit(one, QUICK)
    with pytest.raises(ValueError, match="trained on another split"):
        model.fit(other, QUICK)


def test_a_second_fit_writes_prompts_with_the_tokens_of_its_own_vocabulary() -> None:
    items = small_dataset().items
    model = untrained()
    model.build(small_dataset())
    before = model.writer(items)
    assert model.writer(items) is before, "kept"
    model.build(small_dataset())
    assert model.writer(items).tokenizer is model.tokenizer is not before.tokenizer


def test_too_many_candidates_are_refused_before_stage_2() -> None:
    model, dataset = untrained(), small_dataset()
    model.fit_stage(dataset, "pretrain", TrainConfig(epochs=0))
    model.set_config(replace(model.config, candidates=dataset.n_items))
    with pytest.raises(ValueError, match=r"`candidates` 60: of 60 items only \d+ titles are not in"):
        model.fit_stage(dataset, "finetune", QUICK)
