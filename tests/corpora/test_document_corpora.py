"""Every prompt of both systems as a document: exact tokens, and the indices at which states are read."""

from pathlib import Path

import numpy as np
import pytest

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.prompts import TEMPLATES, Template
from cllm4rec.corpora.rsllm import AnswerCorpus, RSLLMCorpusOptions
from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged
from tests.support.documents import CHATML_LIKE, GEMMA_LIKE, WORDS, by_words, numbers
from tests.support.histories import histories
from tests.support.tokenizers import load_tokenizer
from tests.support.worlds import taste_dataset

N = len(WORDS)  # 39 words; then come 2 users and 5 items
U0, U1, I0, I3 = N, N + 1, N + 2, N + 5
TITLES = ["lamp", "red chair", "", "door", "blue lamp"]
KINDS = {  # tokens around a text, chat template -> begin, between, end
    "none": (("$A", None), "", "", "</s>"),
    "BOS": (("<s> $A", None), "<s>", "", "</s>"),
    "EOS": (("$A </s>", None), "", "", "</s>"),
    "both": (("<s> $A </s>", None), "<s>", "", "</s>"),
    "several": (("<s> <turn> $A <stop> </s>", None), "<s> <turn>", "", "<stop> </s>"),
    "Gemma-like": (("<s> $A", GEMMA_LIKE), "<s> <turn> person |", "<stop> | <turn> machine |", "<stop> |"),
    "ChatML-like": (("<s> $A", CHATML_LIKE), "<turn> person :", "<stop> <turn> machine :", "<stop>"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[ExtendedTokenizer, str, str, str]:
    """A tokenizer with 2 users and 5 items, and how its documents begin, go on and end."""
    (around, chat), *parts = KINDS[request.param]
    return (ExtendedTokenizer(by_words(around, chat=chat), N, 2, 5), *parts)


Kind = tuple[ExtendedTokenizer, str, str, str]


def test_a_collaborative_document(kind: Kind) -> None:
    tokenizer, begin, between, _ = kind
    options = HistoryCorpusOptions(context=40, order="time")
    batch = CollaborativeCorpus(histories([[3, 0]], n_items=5), tokenizer, options).batch(np.array([0]), 0)
    prompt = numbers(f"{begin} {U0} has interacted with {between}")
    assert batch.tokens.tolist() == [[*prompt, I3, I0]]
    assert batch.state_index.tolist() == [len(prompt) - 1, len(prompt)], "from the prompt's last token on"
    assert batch.target_items.tolist() == [3, 0]
    assert batch.ids.tolist() == [0, 2 + 3, 2 + 0]


def test_a_collaborative_document_in_numbers() -> None:
    """User 0 with the items 3 and 0, in Gemma-like turns."""
    tokenizer = ExtendedTokenizer(by_words("<s> $A", chat=GEMMA_LIKE), N, 2, 5)
    options = HistoryCorpusOptions(context=40, order="time")
    batch = CollaborativeCorpus(histories([[3, 0]], n_items=5), tokenizer, options).batch(np.array([0]), 0)
    assert batch.tokens.tolist() == [[1, 3, 10, 5, 39, 12, 13, 14, 4, 5, 3, 11, 5, 44, 41]]
    assert batch.state_index.tolist() == [12, 13]


def test_a_recommendation_prompt_is_read_at_its_very_last_token(kind: Kind) -> None:
    tokenizer, begin, between, _ = kind
    options = HistoryCorpusOptions(context=40, order="time", mask_share=0.3)
    train = histories([[3, 0, 4], [1, 2, 3]], n_items=5)
    batch = RecommendationCorpus(train, tokenizer, options).batch(np.array([0, 1]), 0)
    rows = [
        numbers(f"{begin} {u} has interacted with {items} , {u} will interact with {between}")
        for u, items in ((U0, f"{I3} {I0}"), (U1, f"{I0 + 1} {I0 + 2}"))
    ]
    length, first = len(rows[0]), len(numbers(f"{begin} {U0} has interacted with"))
    assert batch.tokens.tolist() == rows
    assert batch.query_index.tolist() == [length - 1, 2 * length - 1]
    assert batch.item_index.tolist() == [first, first + 1, length + first, length + first + 1]
    assert batch.target_items.tolist() == [4, 3]


def test_truncation_keeps_what_begins_and_ends_a_prompt(kind: Kind) -> None:
    tokenizer, begin, between, _ = kind
    fixed = numbers(f"{begin} {U0} has interacted with , {U0} will interact with {between}")
    context = len(fixed) + 2
    corpus = RecommendationCorpus(
        histories([[3, 0, 4, 1, 2]], n_items=5),
        tokenizer,
        HistoryCorpusOptions(context=context, order="time", mask_share=0.2),
    )
    assert corpus.room == 2
    batch = corpus.batch(np.array([0]), 0)
    assert batch.tokens.shape == (1, context)
    row = batch.tokens[0].tolist()
    assert row == numbers(
        f"{begin} {U0} has interacted with {I0 + 4} {I0 + 1} , {U0} will interact with {between}"
    )
    with pytest.raises(ValueError, match="no room for two items"):
        RecommendationCorpus(corpus.train, tokenizer, HistoryCorpusOptions(context=context - 1))


def test_the_documents_of_reviews_items_and_users(kind: Kind) -> None:
    tokenizer, begin, between, end = kind
    documents = [
        ("review", "", 0, 3, np.array(numbers("red door"))),
        ("item", "title", -1, 0, np.array(numbers("lamp"))),
        ("user", "title", 1, -1, np.array(numbers("chair , blue"))),
    ]
    batch = ContentCorpus(documents, tokenizer, HistoryCorpusOptions(context=60), 1000).batch(np.arange(3), 0)
    prompts = [
        numbers(f"{begin} {U0} writes the following review for {I3} : {between}"),
        numbers(f"{begin} {I0} has the following title : {between}"),
        numbers(f"{begin} {U1} has the following title : {between}"),
    ]
    texts = [numbers(f"{text} {end}") for text in ("red door", "lamp", "chair , blue")]
    rows = [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.mask, strict=True)]
    assert rows == [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
    width = batch.tokens.shape[1]
    read = [
        row * width + len(prompt) - 1 + place
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        for place in range(len(text))
    ]
    assert batch.state_index.tolist() == read
    assert batch.target_tokens.tolist() == sum(texts, [])


@pytest.mark.parametrize("form", ["text", "unified", "ids"])
def test_the_prompts_of_rsllm_with_answers_candidates_and_without_a_question(kind: Kind, form: str) -> None:
    tokenizer, begin, between, end = kind
    tokenizer = ExtendedTokenizer(tokenizer.text_tokenizer, N, 0, 5)
    writer = PromptWriter(tokenizer, TITLES, form, 4)
    written = {
        "text": ["lamp ,", "red chair ,", ",", "door ,", "blue lamp ,"],
        "unified": [f"{title} {N + item}" for item, title in enumerate(TITLES)],
        "ids": [f"{N + item}" for item in range(5)],
    }[form]
    history, answers = Ragged.from_lists([np.array([1, 3])]), writer.answers.take(np.array([4]))
    start = f"{begin} A user chose these items , the oldest first : {written[1]} {written[3]}"

    asked, _ = writer.fill(history, 100, None, answers)
    prompt = numbers(f"{start} and chose next : {between}")
    assert asked.tokens.tolist() == [prompt + numbers(f"blue lamp {end}")]
    assert asked.answer_index.tolist() == list(range(len(prompt), asked.tokens.shape[1]))

    chosen, _ = writer.fill(history, 100, Ragged.from_lists([np.array([0, 4])]), answers)
    candidates = f"and of these candidates : {written[0]} {written[4]} chose next : {between}"
    assert chosen.tokens.tolist() == [numbers(f"{start} {candidates} blue lamp {end}")]

    silent, _ = writer.fill(history, 100, asked=False)
    assert silent.tokens.tolist() == [numbers(start)], "the state of a history is read before any answer"
    for prompts in (asked, chosen, silent):
        assert prompts.query_index.tolist() == [len(numbers(start)) - 1]
        assert prompts.history_index[-1] == len(numbers(start)) - 1

    short, kept = writer.fill(history, asked.tokens.shape[1] - 1, None, answers)
    assert kept.values.tolist() == [3]
    rest = f"A user chose these items , the oldest first : {written[3]} and chose next : {between}"
    assert short.tokens.tolist() == [numbers(f"{begin} {rest} blue lamp {end}")]


def test_stage_1_of_rsllm_learns_the_whole_end_of_an_answer(kind: Kind) -> None:
    tokenizer, _, _, end = kind
    writer = PromptWriter(ExtendedTokenizer(tokenizer.text_tokenizer, N, 0, 5), TITLES, "text", 4)
    train = histories([[1, 3]], n_items=5)
    batch = AnswerCorpus(train, writer, np.arange(5), RSLLMCorpusOptions(100, 10)).batch(np.array([0]), 0)
    assert batch.target_tokens.tolist() == numbers(f"door {end}")
    assert batch.tokens.flatten()[batch.state_index + 1].tolist() == batch.target_tokens.tolist()


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "separator"])
def test_a_prompt_holds_nothing_of_its_main_text(kind: Kind, name: str) -> None:
    """No word of a text and no item of a target is among the tokens of a prompt."""
    tokenizer, begin, between, _ = kind
    template = Template.compile(name, tokenizer, "title")
    fixed = {int(token) for piece in template.pieces if not isinstance(piece, str) for token in piece}
    words = {
        word for word in TEMPLATES[name].replace(",", " , ").replace(":", " : ").split() if "{" not in word
    }
    allowed = set(numbers(f"{begin} {between} title {' '.join(words)}"))
    assert fixed <= allowed
    assert not fixed & set(numbers("lamp chair door red blue yes no"))


def test_content_documents_of_the_real_llama_begin_with_its_bos(shared: Path) -> None:
    words = load_tokenizer("stories260K", shared)
    train = taste_dataset(4, 40, 30, 10).train
    tokenizer = ExtendedTokenizer(words, len(words), train.n_users, train.n_items)
    documents = content_documents(train, tokenizer)
    corpus = ContentCorpus(documents, tokenizer, HistoryCorpusOptions(context=200), 10**6)
    batch = corpus.batch(np.arange(len(documents)), 0)
    assert batch.tokens[:, 0].tolist() == [1] * len(documents) != []
    assert (batch.tokens[:, 1] >= tokenizer.n_text_tokens).all(), "the item follows the BOS"
    assert {row[mask][-1].item() for row, mask in zip(batch.tokens, batch.mask, strict=True)} == {2}
