"""Words and IDs as tokens, templates, ragged lists, and the corpora: what is read, in which order, and how it is weighed."""

import functools

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.text import histories as histories_module
from cllm4rec.text.content import ContentCorpus, content_documents
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions, RecommendationCorpus, fill, prompt_batch
from cllm4rec.text.prompts import OF_CLLM4REC, TEMPLATES, Template, training_texts
from cllm4rec.text.ragged import Ragged, assemble, batches_by_length, cut_by_length
from cllm4rec.text.tokenizer import ExtendedTokenizer, train_bpe

N_USERS, N_ITEMS = 10, 20
SENTENCES = [
    "a reader has interacted with a book and will interact with another",
    "she writes the following review for it: a good book has an end, and a bad one has a sequel",
    "it has the following title: a history of the river",
]


@functools.cache
def load(kind, folder=None):
    """A tokenizer of words: trained here, or one of the real ones in the shared folder."""
    if kind == "bpe":
        return train_bpe(SENTENCES * 3, 400)
    if kind == "bpe without the word a":
        return train_bpe([text.replace(" a ", " the ") for text in SENTENCES] * 3, 400)
    return AutoTokenizer.from_pretrained(folder / "backbones" / kind, trust_remote_code=False)


@pytest.fixture(params=["bpe", "bpe without the word a", "stories260K", "gpt2-tokenizer"])
def tokenizer(request):
    folder = None if request.param.startswith("bpe") else request.getfixturevalue("shared")
    words = load(request.param, folder)
    return ExtendedTokenizer(words, len(words), N_USERS, N_ITEMS)


@pytest.fixture
def small():
    """The tokenizer of the corpora below."""
    words = load("bpe")
    return ExtendedTokenizer(words, len(words), 100, 200)


def plain(tokenizer, text):
    return tokenizer.words(text, add_special_tokens=False)["input_ids"]


def running(tokenizer, text):
    """Tokens of words that stand behind other words in a text."""
    before = plain(tokenizer, "one")
    behind = plain(tokenizer, "one" + text)
    assert behind[: len(before)] == before
    return behind[len(before) :]


# The tokenizer.


def test_ids_are_single_tokens_and_words_are_those_of_running_text(tokenizer):
    ids = tokenizer.encode("user_3 has interacted with item_7")
    assert ids == [tokenizer.user(3), *running(tokenizer, " has interacted with"), tokenizer.item(7)]
    assert tokenizer.user(3) == tokenizer.n_words + 3
    assert tokenizer.item(7) == tokenizer.n_words + N_USERS + 7
    assert len(tokenizer) == tokenizer.n_words + N_USERS + N_ITEMS


def test_no_space_token_stands_between_ids_or_before_punctuation(tokenizer):
    ids = tokenizer.encode("user_3 has interacted with item_7 item_0, user_3 will interact with")
    assert ids == [
        tokenizer.user(3),
        *running(tokenizer, " has interacted with"),
        tokenizer.item(7),
        tokenizer.item(0),
        *running(tokenizer, ","),
        tokenizer.user(3),
        *running(tokenizer, " will interact with"),
    ]


def test_words_before_an_id_and_texts_without_ids_are_tokenised_as_they_are(tokenizer):
    assert tokenizer.encode("the river for user_2") == [*plain(tokenizer, "the river for"), tokenizer.user(2)]
    assert tokenizer.encode("a good book, and a bad one") == plain(tokenizer, "a good book, and a bad one")


@pytest.mark.parametrize(
    "text",
    [
        "user_3 has interacted with item_7",
        "user_9 item_19 item_0",
        "the river for user_2 has item_1 and item_2",
        "a good book, and a bad one",
        "item_5",
        "",
    ],
)
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(tokenizer.decode(tokenizer.encode(text))) == tokenizer.encode(text)


def test_only_whole_words_are_ids(tokenizer):
    for text in ("superuser_3 is", "user_3b", "item_", "user_x"):
        assert max(tokenizer.encode(text)) < tokenizer.n_words
    assert tokenizer.encode("(item_7)")[-2] == tokenizer.item(7)


@pytest.mark.parametrize("text", ["", " ", "\n \t"])
def test_an_empty_text_has_no_tokens(tokenizer, text):
    assert tokenizer.encode(text) == []
    assert [len(ids) for ids in tokenizer.encode_texts([text, "book", text])] == [0, len(running(tokenizer, " book")), 0]


def test_ids_out_of_range_are_refused(tokenizer):
    with pytest.raises(ValueError, match="user number 10 is out of range: there are 10 users"):
        tokenizer.encode("user_10 has")
    with pytest.raises(ValueError, match="item number 20 is out of range: there are 20 items"):
        tokenizer.encode("item_20")
    with pytest.raises(ValueError, match="item number -1 is out of range"):
        tokenizer.item(-1)
    with pytest.raises(ValueError, match="user number 10 is out of range"):
        tokenizer.user(10)


def test_texts_behind_a_prompt_are_tokenised_as_running_text(tokenizer):
    texts = ["a good book", " it has the end ", "river"]
    found = tokenizer.encode_texts(texts)
    assert [ids.tolist() for ids in found] == [running(tokenizer, " " + text.strip()) for text in texts]
    assert all(ids.dtype == np.int64 for ids in found)
    assert tokenizer.encode_texts([]) == []


def test_a_trained_vocabulary_encodes_every_text_and_ends_with_its_end_token():
    words = train_bpe(["only these words"], 300)
    extended = ExtendedTokenizer(words, len(words), 1, 1)
    assert extended.end == 0
    for text in ("Ærøskøbing 漢字", "tab\tand\nline", "<>&\\"):
        assert words.decode(plain(extended, text)) == text
    assert len(train_bpe(SENTENCES, 300)) == 300
    assert train_bpe(SENTENCES, 300).get_vocab() == train_bpe(SENTENCES, 300).get_vocab()


def test_a_tokenizer_without_an_end_token_is_refused_when_one_is_needed():
    words = train_bpe(["x"], 300)
    words.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        _ = ExtendedTokenizer(words, len(words), 1, 1).end


# Templates.


def filled(template, tokenizer, user, item, history):
    """A compiled template filled in by hand."""
    tokens = []
    for piece in template.pieces:
        places = {
            "user": [tokenizer.user(user)],
            "item": [tokenizer.item(item)],
            "candidates": [tokenizer.item(item)],
            "history": [*map(tokenizer.item, history)],
        }
        tokens += places[piece] if isinstance(piece, str) else piece.tolist()
    return tokens


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_compile_to_what_encoding_the_written_text_gives(tokenizer, name):
    for field in ("title", "description") if "{field}" in TEMPLATES[name] else ("",):
        items = {"item": "item_7", "history": "item_1 item_2 item_19", "candidates": "item_7"}
        written = TEMPLATES[name].format(user="user_3", field=field, **items)
        template = Template.compile(name, tokenizer, field)
        tokens = filled(template, tokenizer, 3, 7, [1, 2, 19])
        assert tokens == tokenizer.encode(written)
        assert template.n_fixed == len(tokens) - (3 if "{history}" in TEMPLATES[name] else 0)


def test_a_prompt_and_its_text_are_what_encoding_both_together_gives(tokenizer):
    prompt, text = "item_4 has the following title:", "a history of the river"
    ids = tokenizer.encode(prompt) + tokenizer.encode_texts([text])[0].tolist()
    assert ids == tokenizer.encode(f"{prompt} {text}")


def test_a_vocabulary_is_learned_from_templates_texts_and_training_reviews():
    texts = training_texts(OF_CLLM4REC, {"title": ["One", ""], "brand": ["B"], "biography": ["tea"]}, ["fine"])
    assert {"One", "B", "tea", "fine"} <= set(texts)
    assert "" not in texts
    assert any("interacted with" in text for text in texts)
    assert all("{" not in text for text in texts)
    assert {field for field in ("title", "brand", "biography") if f" has the following {field}:" in texts} == {
        "title",
        "brand",
        "biography",
    }


def test_neither_vocabulary_nor_documents_see_a_held_out_review(small):
    world = taste_world(3, n_users=60, n_items=90, n_events=10)
    events = world.events.with_columns(review_text=pl.format("{}/{}", "user_id", "item_id"))
    dataset = build_dataset(events, world.items)
    reviews = {part: set(dataset.only(part).interactions.reviews) for part in ("train", "validation", "test")}
    train = dataset.train
    texts = training_texts(OF_CLLM4REC, train.item_texts | train.user_texts, train.interactions.reviews.to_list())
    assert reviews["train"] <= set(texts)
    assert not (reviews["validation"] | reviews["test"]) & set(texts)
    read = {
        small.words.decode(words).strip() for template, *_, words in content_documents(train, small) if template == "review"
    }
    assert read == reviews["train"]


# Ragged lists.


def random_lists(seed, n=30, longest=7):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 100, int(generator.integers(0, longest + 1))) for _ in range(n)]


def as_lists(ragged):
    ends = np.cumsum(ragged.lengths)
    assert ends[-1] == len(ragged.values)
    return [ragged.values[end - length : end].tolist() for end, length in zip(ends, ragged.lengths, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_ragged_lists_do_what_plain_loops_do(seed):
    generator = np.random.default_rng(seed)
    lists = random_lists(seed)
    ragged = Ragged.of(lists)
    plain_lists = [one.tolist() for one in lists]
    assert as_lists(ragged) == plain_lists
    assert ragged.rows.tolist() == [row for row, one in enumerate(plain_lists) for _ in one]
    assert ragged.places.tolist() == [place for one in plain_lists for place in range(len(one))]
    assert ragged.starts.tolist() == [sum(map(len, plain_lists[:row])) for row in range(len(plain_lists))]
    for n in (0, 1, 3, 100):
        assert as_lists(ragged.first(n)) == [one[:n] for one in plain_lists]
        assert as_lists(ragged.last(n)) == [one[max(0, len(one) - n) :] for one in plain_lists]
    counts = generator.integers(0, 5, len(lists))
    assert as_lists(ragged.first(counts)) == [one[:n] for one, n in zip(plain_lists, counts.tolist(), strict=True)]
    rows = generator.integers(0, len(lists), 12)
    assert as_lists(ragged.take(rows)) == [plain_lists[row] for row in rows.tolist()]
    keep = generator.random(len(ragged.values)) < 0.5
    flags = as_lists(Ragged(keep, ragged.lengths))
    assert as_lists(ragged.where(keep)) == [
        [value for value, kept in zip(one, kept_ones, strict=True) if kept]
        for one, kept_ones in zip(plain_lists, flags, strict=True)
    ]
    keys = generator.integers(0, 2**64, len(ragged.values), dtype=np.uint64)
    by_key = as_lists(Ragged(keys, ragged.lengths))
    assert as_lists(ragged.ordered(keys)) == [
        [value for _, value in sorted(zip(own, one, strict=True))] for own, one in zip(by_key, plain_lists, strict=True)
    ]


def test_ragged_constants_and_singles():
    assert as_lists(Ragged.constant(np.array([4, 5]), 3)) == [[4, 5]] * 3
    assert as_lists(Ragged.single(np.array([7, 8]))) == [[7], [8]]
    assert as_lists(Ragged.single(np.array([7, 8, 9]), np.array([True, False, True]))) == [[7], [], [9]]


def test_no_lists_at_all_are_a_ragged_too():
    nothing = Ragged.of([])
    assert nothing.starts.tolist() == nothing.places.tolist() == nothing.rows.tolist() == []
    assert nothing.first(3).values.tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_assembled_pieces_are_the_lists_joined_and_padded(seed):
    pieces = [random_lists(10 * seed + i, n=12, longest=i) for i in (1, 4, 0, 6)]
    tokens, mask, places = assemble([Ragged.of(piece) for piece in pieces])
    joined = [[value for piece in pieces for value in piece[row].tolist()] for row in range(12)]
    width = max(map(len, joined))
    assert tokens.tolist() == [one + [0] * (width - len(one)) for one in joined]
    assert mask.tolist() == [[True] * len(one) + [False] * (width - len(one)) for one in joined]
    for piece, place in zip(pieces, places, strict=True):
        assert tokens.flatten()[place].tolist() == [value for one in piece for value in one.tolist()]
        assert (place // width).tolist() == [row for row, one in enumerate(piece) for _ in one]


def test_the_example_of_assemble():
    tokens, mask, places = assemble([Ragged.of([np.array([1]), np.array([2])]), Ragged.of([np.array([10, 11]), np.array([])])])
    assert tokens.tolist() == [[1, 10, 11], [2, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert [place.tolist() for place in places] == [[0, 3], [1, 2]]


@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
def test_batches_by_length_hold_every_row_once_within_the_limit(tokens):
    lengths = np.random.default_rng(tokens).integers(1, 30, 200)
    batches = batches_by_length(lengths, tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens for rows in batches)
    for rows, following in zip(batches, batches[1:], strict=False):  # no batch could have taken one row more
        assert lengths[rows].max() <= lengths[following].min()
        length, positions = lengths[following].min(), (len(rows) + 1) * lengths[following].min()
        padded = positions - lengths[rows].sum() - length
        assert positions > tokens or (lengths[rows].sum() >= 1024 and padded > 0.1 * positions)
    assert batches_by_length(np.empty(0, dtype=np.int64), 10) == []


def test_rows_are_cut_where_padding_is_least():
    """Against all cuts there are; and not at all where padding is a tenth or less."""
    generator = np.random.default_rng(0)
    for n in (1, 2, 5, 40):
        for spread in (1, 5, 50):
            lengths = generator.integers(10, 10 + spread, 60)
            rows = generator.permutation(60)[:n]
            short, long = cut_by_length(rows, lengths)
            assert sorted([*short, *long]) == sorted(rows)
            positions = sum(len(part) * lengths[part].max(initial=0) for part in (short, long))
            own = np.sort(lengths[rows])
            if len(short):
                assert own.sum() < 0.9 * n * own[-1]
                assert positions == min(i * own[i - 1] + (n - i) * own[-1] for i in range(1, n))
            else:
                assert own.sum() >= 0.9 * n * own[-1]
    assert [len(part) for part in cut_by_length(np.array([4, 2]), np.array([0, 0, 10, 0, 2]))] == [1, 1]


# Corpora of histories.


def histories(lists, n_users=None, n_items=200):
    """Interactions from one list of items a user, in time order."""
    users = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    return Interactions(users, items, n_users or len(lists), n_items)


def random_histories(seed=0, n_users=100, longest=30):
    """Users with 0 to `longest` items; users 0 and 1 have none and one."""
    generator = np.random.default_rng(seed)
    lengths = [0, 1, *generator.integers(0, longest + 1, n_users - 2).tolist()]
    return histories([generator.choice(200, length, replace=False).tolist() for length in lengths])


def examples_of(batch, tokenizer):
    """Each example of a batch apart, padding left out: tokens, targets, where states are read, weights of its IDs."""
    width = batch["tokens"].shape[1]
    read = batch.get("read", batch.get("query"))
    row_of_target = read[batch["rows"]] // width if "read" in batch else batch["rows"]
    row_of_id = (batch["mask"] & (batch["tokens"] >= tokenizer.n_words)).nonzero()[:, 0]
    return [
        {
            "tokens": batch["tokens"][row][batch["mask"][row]].tolist(),
            "targets": batch["targets"][row_of_target == row].tolist(),
            "read": (read[read // width == row] - row * width).tolist(),
            "weights": batch["weights"][row_of_id == row].tolist() if "weights" in batch else [],
        }
        for row in range(len(batch["tokens"]))
    ]


def whole_epoch(corpus, epoch, size=16):
    order = corpus.selection(epoch)
    return [corpus.batch(order[start : start + size], epoch) for start in range(0, len(order), size)]


def content_corpus(tokenizer, tokens_per_pass=10**9, n=60, **options):
    """Documents of all kinds about 100 users and 200 items, some of them long."""
    generator = np.random.default_rng(1)
    documents = []
    for number in range(n):
        kind, field, user, item = [("review", "", 1, 1), ("item", "title", 0, 1), ("user", "biography", 1, 0)][number % 3]
        words = generator.integers(1, tokenizer.n_words, int(generator.integers(1, 40)))
        documents.append(
            (
                kind,
                field,
                int(generator.integers(100)) if user else -1,
                int(generator.integers(200)) if item else -1,
                words,
            )
        )
    return ContentCorpus(documents, tokenizer, HistoryOptions(**({"context": 64} | options)), tokens_per_pass), documents


def corpora(tokenizer, **options):
    """One of each kind, over the same users and items."""
    given = HistoryOptions(**({"context": 32} | options))
    train = random_histories()
    return {
        "collaborative": CollaborativeCorpus(train, tokenizer, given),
        "recommendation": RecommendationCorpus(train, tokenizer, given),
        "content": content_corpus(tokenizer, **options)[0],
    }


KINDS = ("collaborative", "recommendation", "content")


def test_the_batch_in_the_docstring_of_corpora():
    """Two users with the items {5, 3} and {7}, a prompt of three words."""
    words = load("bpe")
    tokenizer = ExtendedTokenizer(words, 1000, 50, 60)
    three = tokenizer.encode_words(" has interacted with", after_id=True)
    assert len(three) == 3
    corpus = CollaborativeCorpus(histories([[5, 3], [7]], n_items=60), tokenizer, HistoryOptions(context=20))
    tokenizer_user, tokenizer_item = tokenizer.user, tokenizer.item
    epoch = next(e for e in range(100) if corpus.batch(np.array([0, 1]), e)["targets"].tolist() == [3, 5, 7])
    batch = corpus.batch(np.array([0, 1]), epoch)
    assert batch["tokens"].tolist() == [
        [tokenizer_user(0), *three, tokenizer_item(3), tokenizer_item(5)],
        [tokenizer_user(1), *three, tokenizer_item(7), 0],
    ]
    assert batch["mask"].tolist() == [[True] * 6, [True] * 5 + [False]]
    assert batch["read"].tolist() == [3, 4, 9]
    assert batch["rows"].tolist() == [0, 1, 2]
    assert batch["targets"].tolist() == [3, 5, 7]
    assert sorted(batch["ids"].tolist()) == [0, 1, 50 + 3, 50 + 5, 50 + 7]
    assert batch["weights"].tolist() == [1.0] * 5


def test_an_id_that_occurs_twice_in_an_epoch_weighs_half_each_time(small):
    corpus = CollaborativeCorpus(histories([[5, 3], [3]]), small, HistoryOptions(context=20))
    batch = corpus.batch(np.array([0, 1]), 0)
    weights = dict(zip(batch["ids"].tolist(), batch["weights"].tolist(), strict=True))
    assert weights == {0: 1.0, 1: 1.0, small.n_users + 5: 1.0, small.n_users + 3: 0.5}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"user_dropping": 0.5}, {"order": "time", "context": 24}])
@pytest.mark.parametrize("size", [1, 13, 1000])
def test_weights_sum_over_an_epoch_to_the_number_of_ids_that_occur(small, kind, options, size):
    corpus = corpora(small, **options)[kind]
    for epoch in (0, 1, 0):
        total = np.zeros(small.n_users + small.n_items)
        occurring = set()
        for batch in whole_epoch(corpus, epoch, size):
            np.add.at(total, batch["ids"].numpy(), batch["weights"].numpy())
            tokens = batch["tokens"][batch["mask"]].numpy()
            occurring |= set((tokens[tokens >= small.n_words] - small.n_words).tolist())
        np.testing.assert_allclose(total[sorted(occurring)], 1.0, rtol=1e-6)
        assert total.sum() == pytest.approx(len(occurring), rel=1e-6)


@pytest.mark.parametrize("tokens_per_pass", [150, 700])
def test_weights_of_a_content_pass_count_that_pass_alone(small, tokens_per_pass):
    corpus, _ = content_corpus(small, tokens_per_pass)
    for epoch in range(3):
        batches = whole_epoch(corpus, epoch, 4)
        occurring = {one for batch in batches for one in batch["ids"].tolist()}
        assert sum(float(batch["weights"].sum()) for batch in batches) == pytest.approx(len(occurring), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", [1, 3, 64])
def test_batches_are_each_batch_on_its_own(small, kind, together, monkeypatch):
    monkeypatch.setattr(histories_module, "TOGETHER", together)
    corpus = corpora(small, user_dropping=0.3)[kind]
    order = corpus.selection(2)
    parts = [order[start : start + 4] for start in range(0, len(order), 4)]
    for batch, part in zip(corpus.batches(parts, 2, range(len(parts))), parts, strict=True):
        alone = corpus.batch(part, 2)
        assert batch.keys() == alone.keys()
        assert all(torch.equal(batch[name], alone[name]) for name in batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["random", "time"])
def test_an_example_is_the_same_in_every_batch(small, kind, order):
    corpus = corpora(small, user_dropping=0.3, order=order)[kind]
    for epoch in (0, 3):
        chosen = corpus.selection(epoch)
        together = examples_of(corpus.batch(chosen, epoch), small)
        alone = [examples_of(corpus.batch(chosen[i : i + 1], epoch), small)[0] for i in range(len(chosen))]
        backwards = examples_of(corpus.batch(chosen[::-1], epoch), small)[::-1]
        assert together == alone == backwards


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
def test_items_are_shuffled_anew_in_each_epoch_and_by_each_seed(small, kind):
    first, again = corpora(small)[kind], corpora(small)[kind]
    other_seed = corpora(small, seed=1)[kind]
    rows = np.arange(len(first.users))
    tokens = [first.batch(rows, epoch)["tokens"].tolist() for epoch in (0, 1)]
    assert tokens[0] == again.batch(rows, 0)["tokens"].tolist()
    assert tokens[0] != other_seed.batch(rows, 0)["tokens"].tolist()
    orders = [[[token for token in row if token >= small.item(0)] for row in rows_of_epoch] for rows_of_epoch in tokens]
    assert np.mean([one != other for one, other in zip(*orders, strict=True) if len(one) > 5]) > 0.95


def test_every_order_of_items_is_equally_likely(small):
    corpus = CollaborativeCorpus(histories([[1, 2, 3]]), small, HistoryOptions(context=20))
    counts = {}
    for epoch in range(1800):
        order = tuple(corpus.batch(np.array([0]), epoch)["targets"].tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 300) ** 2 / 300 for n in counts.values()) < 22  # chi-square, 5 degrees of freedom, p < 0.0006


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_visits_every_example_once_in_an_order_of_its_own(small, kind):
    corpus = corpora(small)[kind]
    orders = [corpus.selection(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(len(corpus.lengths))) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == corpora(small)[kind].selection(0).tolist()


def test_the_corpora_draw_apart(small):
    """Else the items shown to the head would always be the first ones that pretraining predicted."""
    both = corpora(small)
    assert both["collaborative"].selection(0).tolist() != both["recommendation"].selection(0).tolist()


@pytest.mark.parametrize("order", ["random", "time"])
def test_every_item_of_a_collaborative_text_is_predicted_the_first_one_too(small, order):
    train = random_histories()
    corpus = CollaborativeCorpus(train, small, HistoryOptions(context=200, order=order))
    prompt = small.encode_words(" has interacted with", after_id=True)
    for batch in whole_epoch(corpus, 0):
        after = batch["tokens"].flatten()[batch["read"] + 1]
        assert (after == small.item(0) + batch["targets"]).all()
        assert batch["rows"].tolist() == list(range(len(batch["read"])))
    for example, user in zip(examples_of(corpus.batch(np.arange(20), 0), small), corpus.users, strict=False):
        items = train.history(user).tolist()
        assert example["tokens"][: 1 + len(prompt)] == [small.user(user), *prompt]
        assert example["targets"] == items if order == "time" else sorted(example["targets"]) == sorted(items)


def test_users_without_training_items_make_no_example(small):
    corpus = corpora(small)["collaborative"]
    assert 0 not in corpus.users
    assert corpus.users.tolist() == np.flatnonzero(np.diff(random_histories().indptr)).tolist()


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
@pytest.mark.parametrize("order", ["random", "time"])
def test_a_long_history_loses_items_and_never_words_or_the_query(small, kind, order):
    context = 20
    corpus = corpora(small, context=context, order=order)[kind]
    written = (
        "user_{u} has interacted with"
        if kind == "collaborative"
        else "user_{u} has interacted with, user_{u} will interact with"
    )
    train, cut = random_histories(), 0
    for epoch in range(2):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        assert batch["tokens"].shape[1] <= context
        for example, user in zip(examples_of(batch, small), corpus.users.tolist(), strict=True):
            items = [token - small.item(0) for token in example["tokens"] if token >= small.item(0)]
            rest = [token for token in example["tokens"] if token < small.item(0)]
            assert rest == small.encode(written.format(u=user))
            history = train.history(user).tolist()
            fit = history if kind == "collaborative" else [item for item in history if item not in example["targets"]]
            assert set(items) <= set(fit)
            assert len(items) == len(set(items)) == min(len(fit), corpus.room)
            cut += len(items) < len(fit)
            if order == "time":
                assert items == fit[len(fit) - len(items) :]  # the oldest go
    assert cut > 20


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
def test_a_context_without_room_for_two_items_is_an_error(small, kind):
    with pytest.raises(ValueError, match="no room for two items"):
        corpora(small, context=5)[kind]


@pytest.mark.parametrize("mask_share", [0.2, 0.5, 0.9])
def test_the_masked_items_are_a_random_share_and_the_others_are_shown(small, mask_share):
    train = random_histories()
    corpus = RecommendationCorpus(train, small, HistoryOptions(context=500, mask_share=mask_share))
    masked_before = {}
    for epoch in range(2):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        for example, user in zip(examples_of(batch, small), corpus.users.tolist(), strict=True):
            history = train.history(user).tolist()
            n = len(history)
            shown = [token - small.item(0) for token in example["tokens"] if token >= small.item(0)]
            assert sorted(shown + example["targets"]) == sorted(history)
            if n > 1:
                assert len(example["targets"]) == min(n - 1, max(1, round(mask_share * n)))
            if n > 10:
                masked_before.setdefault(user, []).append(sorted(example["targets"]))
    assert np.mean([a != b for a, b in masked_before.values()]) > 0.8


def test_in_time_order_a_suffix_of_random_length_is_masked(small):
    train = random_histories()
    corpus = RecommendationCorpus(train, small, HistoryOptions(context=500, mask_share=0.3, order="time"))
    lengths = {}
    for epoch in range(30):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        for example, user in zip(examples_of(batch, small), corpus.users.tolist(), strict=True):
            history = train.history(user).tolist()
            shown = [token - small.item(0) for token in example["tokens"] if token >= small.item(0)]
            assert shown + example["targets"] == history
            lengths.setdefault(len(history), set()).add(len(example["targets"]))
    for n, seen in lengths.items():
        assert seen <= set(range(1, max(1, min(n - 1, round(0.3 * n))) + 1))
    assert lengths[max(lengths)] == set(range(1, round(0.3 * max(lengths)) + 1))


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("targets", ["unseen", "masked", "all"])
def test_a_user_with_one_item_keeps_the_user_token_and_that_item_is_the_target(small, order, targets):
    corpus = RecommendationCorpus(
        histories([[7], [1, 2, 3]]), small, HistoryOptions(context=40, order=order, user_dropping=1.0, targets=targets)
    )
    one, many = examples_of(corpus.batch(np.array([0, 1]), 0), small)
    assert one["tokens"] == small.encode("user_0 has interacted with, user_0 will interact with")
    assert one["targets"] == [7]
    assert small.user(1) not in many["tokens"]


def test_what_finetuning_predicts_and_leaves_out_is_an_option(small):
    train, rows = random_histories(), np.arange(60)
    made = {
        targets: RecommendationCorpus(train, small, HistoryOptions(context=500, targets=targets)).batch(rows, 0)
        for targets in ("unseen", "masked", "all")
    }
    unseen, masked, everything = made["unseen"], made["masked"], made["all"]
    assert unseen["tokens"].tolist() == masked["tokens"].tolist() == everything["tokens"].tolist()
    assert unseen["targets"].tolist() == masked["targets"].tolist()
    assert masked["shown"].tolist() == masked["shown_rows"].tolist() == everything["shown"].tolist() == []
    width = unseen["tokens"].shape[1]
    for row in range(len(rows)):
        shown = [token - small.item(0) for token in unseen["tokens"][row].tolist() if token >= small.item(0)]
        assert unseen["shown"][unseen["shown_rows"] == row].tolist() == shown
        assert set(unseen["targets"][unseen["rows"] == row].tolist()).isdisjoint(shown)
        own = everything["targets"][everything["rows"] == row].tolist()
        user = RecommendationCorpus(train, small, HistoryOptions(context=500)).users[row]
        assert sorted(own) == sorted(train.history(user).tolist())
        pool = unseen["pool"][unseen["pool_rows"] == row]
        assert (unseen["tokens"].flatten()[pool] - small.item(0)).tolist() == shown
        assert unseen["query"][row] == row * width + int(unseen["mask"][row].sum()) - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dropping", "low", "high"), [(0.0, 0.0, 0.0), (0.3, 0.22, 0.38), (1.0, 0.85, 1.0)])
def test_user_tokens_are_dropped_in_the_share_asked_for(small, kind, dropping, low, high):
    corpus = corpora(small, user_dropping=dropping)[kind]
    without = total = 0
    for epoch in range(12):
        batch = corpus.batch(corpus.selection(epoch), epoch)
        if kind == "content":
            about_user = corpus.users[corpus.selection(epoch)] >= 0
        else:
            about_user = np.ones(len(batch["tokens"]), dtype=bool)
        has_user = ((batch["tokens"] >= small.user(0)) & (batch["tokens"] < small.item(0)) & batch["mask"]).any(1).numpy()
        assert not has_user[~about_user].any()
        without += int((~has_user[about_user]).sum())
        total += int(about_user.sum())
    assert low <= without / total <= high


def test_a_prompt_for_scoring_is_the_written_text(small):
    template = Template.compile("recommend", small)
    items = Ragged.of([np.array([3, 5]), np.array([], dtype=np.int64), np.array([9])])
    batch = prompt_batch(small, *fill(template, small, np.array([4, 6, 8]), items, np.array([True, True, False])))
    tokens = [row[own].tolist() for row, own in zip(batch["tokens"], batch["mask"], strict=True)]
    assert tokens[0] == small.encode("user_4 has interacted with item_3 item_5, user_4 will interact with")
    assert tokens[1] == small.encode("user_6 has interacted with, user_6 will interact with")
    with_user = small.encode("user_8 has interacted with item_9, user_8 will interact with")
    assert tokens[2] == [token for token in with_user if token != small.user(8)]


# The content corpus.


def text_dataset(reviews=("a good book", "", None), titles=("the river", "", "a history of the end")):
    events = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"], "review_text": list(reviews)})
    items = pl.DataFrame({"item_id": ["x", "y", "z"], "title": list(titles), "categories": ["", " ", "book"]})
    users = pl.DataFrame({"user_id": ["a", "b"], "biography": ["", "a reader"]})
    return Dataset.from_frame(events, items, users)


def test_every_text_makes_a_document_and_an_empty_one_makes_none(small):
    dataset = text_dataset()
    found = {
        (kind, field, dataset.users["user_id"][user] if user >= 0 else "", dataset.items["item_id"][item] if item >= 0 else "")
        + (small.words.decode(words).strip(),)
        for kind, field, user, item, words in content_documents(dataset, small)
    }
    assert found == {
        ("review", "", "a", "x", "a good book"),
        ("item", "title", "", "x", "the river"),
        ("item", "title", "", "z", "a history of the end"),
        ("item", "categories", "", "z", "book"),
        ("user", "biography", "b", "", "a reader"),
    }
    assert content_documents(dataset.only(), small) == [], "texts belong to the events of their users and items"


def test_data_without_texts_has_no_documents_and_an_empty_corpus_no_passes(small):
    bare = Dataset.from_frame(pl.DataFrame({"user_id": ["a"], "item_id": ["x"]}))
    assert content_documents(bare, small) == []
    corpus = ContentCorpus([], small, HistoryOptions(context=30), 100)
    assert corpus.selection(0).tolist() == corpus.selection(5).tolist() == []
    assert content_corpus(small, tokens_per_pass=0)[0].selection(0).tolist() == []


def test_a_document_is_its_written_prompt_its_words_and_the_end(small):
    dataset = text_dataset()
    documents = content_documents(dataset, small)
    corpus = ContentCorpus(documents, small, HistoryOptions(context=100), 10**9)
    batch = corpus.batch(np.arange(len(documents)), 0)
    width = batch["tokens"].shape[1]
    prompts = {
        "review": "user_{u} writes the following review for item_{i}:",
        "item": "item_{i} has the following {f}:",
        "user": "user_{u} has the following {f}:",
    }
    for row, (kind, field, user, item, words) in enumerate(documents):
        prompt = small.encode(prompts[kind].format(u=user, i=item, f=field))
        tokens = batch["tokens"][row][batch["mask"][row]].tolist()
        assert tokens == [*prompt, *words.tolist(), small.end]
        read = [place - row * width for place in batch["read"].tolist() if place // width == row]
        assert read == list(range(len(prompt) - 1, len(tokens) - 1))  # from the prompt's last token on, IDs never
    assert batch["targets"].tolist() == [token for *_, words in documents for token in [*words.tolist(), small.end]]


@pytest.mark.parametrize("context", [24, 64])
def test_a_long_text_is_cut_to_a_random_window_and_any_other_ends_with_the_end_token(small, context):
    corpus, documents = content_corpus(small, context=context)
    seen = {}
    for epoch in range(40):
        batch = corpus.batch(np.arange(len(documents)), epoch)
        assert batch["tokens"].shape[1] <= context
        after = batch["tokens"].flatten()[batch["read"] + 1]
        assert (after == batch["targets"]).all()
        for row, example in enumerate(examples_of(batch, small)):
            text = [*documents[row][4].tolist(), small.end]
            window = example["targets"]
            starts = [s for s in range(len(text) - len(window) + 1) if text[s : s + len(window)] == window]
            assert starts
            prompt = len(example["tokens"]) - len(window)
            assert len(window) == min(len(text), context - prompt)
            if len(window) == len(text):
                assert window[-1] == small.end
            elif len(starts) == 1:
                seen.setdefault(row, []).append((starts[0], len(text) - len(window)))
    assert bool(seen) == (context == 24)
    if seen:
        few = [starts for starts in seen.values() if starts[0][1] <= 3]
        assert all(start <= last for starts in seen.values() for start, last in starts)
        assert all({start for start, _ in starts} == set(range(starts[0][1] + 1)) for starts in few)
        assert np.mean([len({start for start, _ in starts}) > 1 for starts in seen.values()]) == 1.0


@pytest.mark.parametrize("share", [0.07, 0.31, 0.5, 0.99])
def test_passes_go_on_where_the_last_one_stopped_and_keep_to_their_budget(small, share):
    total = int(content_corpus(small)[0].lengths.sum())
    budget = int(share * total)
    corpus, documents = content_corpus(small, tokens_per_pass=budget)
    row, read = [], 0
    n_passes = int(4 / share)
    for epoch in range(n_passes):
        chosen = corpus.selection(epoch)
        assert corpus.lengths[chosen].sum() <= budget + corpus.lengths.max()
        row += chosen.tolist()
        read += int(corpus.lengths[chosen].sum())
    for start in range(0, len(row) - len(documents) + 1, len(documents)):
        assert sorted(row[start : start + len(documents)]) == list(range(len(documents)))  # all before any comes again
    assert len(row) >= 3 * len(documents)
    assert row[: len(documents)] != row[len(documents) : 2 * len(documents)]
    assert abs(read - n_passes * budget) <= corpus.lengths.max()


def test_a_pass_is_a_function_of_its_number(small):
    budget = 300
    forward = [content_corpus(small, budget)[0].selection(epoch).tolist() for epoch in range(5)]
    corpus = content_corpus(small, budget)[0]
    assert [corpus.selection(epoch).tolist() for epoch in reversed(range(5))] == forward[::-1]


def test_lengths_are_the_tokens_of_each_document(small):
    corpus, _ = content_corpus(small, context=24)
    batch = corpus.batch(corpus.selection(0), 0)
    assert batch["mask"].sum(1).tolist() == corpus.lengths[corpus.selection(0)].tolist()


def test_a_context_without_room_for_two_words_is_an_error(small):
    with pytest.raises(ValueError, match="no room for two words"):
        content_corpus(small, context=6)
