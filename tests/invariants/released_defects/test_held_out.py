"""Defect 10 of CLLM4Rec's released code does not occur: held-out events in the corpora."""

from dataclasses import replace

import numpy as np
import polars as pl

from cllm4rec.corpora.content import content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, RecommendationCorpus
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from tests.support.released_defects import items_of, small_dataset, trained_model
from tests.support.systems import QUICK


# 10: reviews of held-out pairs could be in the corpus
def test_reviews_of_held_out_events_are_in_no_corpus_and_no_vocabulary() -> None:
    learned, secret = "flumquazzling", "grobvexination"
    dataset = small_dataset()
    events = dataset.interactions
    texts = [f"quite a {learned if part == 0 else secret} book" for part in dataset.part]
    planted = replace(dataset, interactions=replace(events, reviews=pl.Series(texts)))
    for held_out in (planted.validation, planted.test):
        assert secret in held_out.interactions.reviews[0]
    fitted = CLLM4Rec().fit_stage(planted, "pretrain", replace(QUICK, epochs=1))
    tokenizer = fitted.tokenizer.text_tokenizer
    assert len(tokenizer.tokenize(f" {learned}")) == 1, "a word of the training reviews is one token"
    assert len(tokenizer.tokenize(f" {secret}")) > 3
    assert not any(secret[:6] in piece for piece in tokenizer.get_vocab())
    documents = content_documents(planted.train, fitted.tokenizer)
    written = [tokenizer.decode(words) for *_, words in documents]
    assert sum(learned in text for text in written) == len(planted.train.interactions)
    assert not any(secret in text for text in written)
    reviewed = {(user, item) for template, _, user, item, _ in documents if template == "review"}
    held_out = planted.only("validation", "test").interactions
    assert not reviewed & set(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))


def test_held_out_items_are_in_no_history() -> None:
    dataset = small_dataset()
    held_out = dataset.only("validation", "test").interactions
    pairs = set(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))
    for stage in trained_model().stages:
        for objective in trained_model().objectives(dataset.train, stage, QUICK):
            corpus = objective.corpus
            if not isinstance(corpus, CollaborativeCorpus | RecommendationCorpus):
                continue
            examples = np.arange(len(corpus.users))
            batch = corpus.batch(examples, epoch=0)
            for row, user in enumerate(corpus.users.tolist()):
                items = items_of(batch.tokens[row][batch.mask[row]])
                if objective.name == "recommend":
                    items += batch.target_items[batch.target_rows == row].tolist()
                assert items
                assert not pairs & {(user, item) for item in items}
