"""The tokens with which a document begins and ends, asked of tokenizers and their chat templates."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cllm4rec.corpora.documents import DocumentTokens, document_tokens, text_begin
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.corpora.words import WordTokenizer
from tests.support.documents import CHATML_LIKE, GEMMA_LIKE, NUMBERS, by_words, numbers
from tests.support.tokenizers import load_tokenizer

# Templates for any tokenizer with an EOS.
TEMPLATES = {
    "lines": "{% for turn in messages %}{{ turn.role + '\n' + turn.content + eos_token + '\n' }}{% endfor %}",
    "spaces": (
        "{% for turn in messages %}{% if turn.role == 'user' %}{{ '[ASK] ' + turn.content + ' [/ASK]' }}"
        "{% else %}{{ ' ' + turn.content + eos_token }}{% endif %}{% endfor %}"
    ),
    "system": (
        "{% if messages[0].role != 'system' %}{{ 'Be brief.' + eos_token }}{% endif %}"
        "{% for turn in messages %}{{ '(' + turn.role + ')' + turn.content | trim + eos_token }}{% endfor %}"
    ),
}


def tokens_of(document: DocumentTokens) -> tuple[list[int], list[int], list[int]]:
    return list(document.begin), list(document.between), list(document.end)


@pytest.mark.parametrize(
    ("around", "begin", "end"),
    [
        ("$A", "", "</s>"),
        ("<s> $A", "<s>", "</s>"),
        ("$A </s>", "", "</s>"),
        ("<s> $A </s>", "<s>", "</s>"),
        ("<s> <turn> $A <stop> </s>", "<s> <turn>", "<stop> </s>"),
        ("<s> $A <stop>", "<s>", "<stop>"),
    ],
)
def test_a_document_has_the_tokens_that_the_tokenizer_puts_around_a_text(
    around: str, begin: str, end: str
) -> None:
    document = document_tokens(by_words(around), chat=True)
    assert tokens_of(document) == (numbers(begin), [], numbers(end))
    assert not document.chat


@pytest.mark.parametrize("name", ["stories260K", "gpt2-tokenizer"])
def test_real_tokenizers_begin_a_document_as_their_models_were_trained(name: str, shared: Path) -> None:
    document = document_tokens(load_tokenizer(name, shared), chat=True)
    assert tokens_of(document) == {"stories260K": ([1], [], [2]), "gpt2-tokenizer": ([], [], [50256])}[name]


def test_the_vocabulary_of_a_built_in_backbone_begins_with_nothing(bpe: ExtendedTokenizer) -> None:
    assert tokens_of(bpe.document) == ([], [], [0])


def test_without_an_end_token_that_of_the_configuration_ends_a_text() -> None:
    tokenizer, stop = by_words("<s> $A", eos=None), NUMBERS["<stop>"]
    assert document_tokens(tokenizer, True, (stop, NUMBERS["</s>"])).end == (stop,)
    # A number that is a word of texts, or no token at all, would end titles that hold it, or nothing.
    unknown = NUMBERS["<unk>"]
    assert document_tokens(tokenizer, True, (NUMBERS["lamp"], unknown, 10**6, stop)).end == (stop,)


def test_without_any_end_token_a_line_break_ends_a_text(shared: Path) -> None:
    assert document_tokens(by_words(eos=None), True, (NUMBERS["lamp"],)).end == (NUMBERS["\n"],)
    llama = deepcopy(load_tokenizer("stories260K", shared))
    llama.eos_token = None
    assert document_tokens(llama, True).end == (13,), "<0x0A>"


def test_a_tokenizer_with_nothing_to_end_a_text_is_refused() -> None:
    tokenizer = by_words("<s> $A", eos=None)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="no end token .eos_token. and no tokens for a line break"):
        document_tokens(tokenizer, True)
    assert text_begin(WordTokenizer(tokenizer)) == (NUMBERS["<s>"],), "which needs no end"


class Rewriting(PreTrainedTokenizerFast):
    """A tokenizer that reads a text otherwise where it adds special tokens."""

    def __call__(self, text: Any, add_special_tokens: bool = True, **settings: Any) -> Any:
        read = text.upper() if add_special_tokens else text
        return super().__call__(read, add_special_tokens=add_special_tokens, **settings)


def test_a_tokenizer_whose_special_tokens_change_a_text_is_refused() -> None:
    tokenizer = Rewriting(tokenizer_object=by_words("<s> $A").backend_tokenizer, eos_token="</s>")
    reason = r"tokenizer reads 'red' as \[1, 0\] with special tokens and as \[6\] without"
    with pytest.raises(ValueError, match=f"the backbone's {reason}"):
        document_tokens(tokenizer, True)
    with pytest.raises(ValueError, match=f"the encoder's {reason}"):
        text_begin(WordTokenizer(tokenizer, "encoder"))


def test_turns_of_the_real_gemma_are_its_special_tokens_once_each() -> None:
    folder = os.environ.get("CLLM4REC_GEMMA")
    if folder is None:
        pytest.skip("no Gemma")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    turns = "{% for turn in messages %}{{ '<start_of_turn>' + turn.role + '\n' + turn.content }}"
    tokenizer.chat_template = "{{ bos_token }}" + turns + "{{ '<end_of_turn>\n' }}{% endfor %}"
    document = document_tokens(tokenizer, chat=True)
    start, stop, line = 105, 106, 107
    assert [tokenizer.decode([token]) for token in (start, stop, line)] == [
        "<start_of_turn>",
        "<end_of_turn>",
        "\n",
    ]
    (user,), (assistant,) = tokenizer(["user", "assistant"], add_special_tokens=False)["input_ids"]
    assert tokens_of(document) == (
        [2, start, user, line],
        [stop, line, start, assistant, line],
        [stop, line],
    )


def test_a_gemma_like_template_gives_the_turns_with_one_bos() -> None:
    document = document_tokens(by_words("<s> $A", chat=GEMMA_LIKE), chat=True)
    begin, between, end = "<s> <turn> person |", "<stop> | <turn> machine |", "<stop> |"
    assert tokens_of(document) == (numbers(begin), numbers(between), numbers(end))
    assert document.chat


def test_a_chatml_like_template_has_the_bos_that_it_writes_and_no_other() -> None:
    document = document_tokens(by_words("<s> $A", chat=CHATML_LIKE), chat=True)
    begin, between, end = "<turn> person :", "<stop> <turn> machine :", "<stop>"
    assert tokens_of(document) == (numbers(begin), numbers(between), numbers(end))


def test_a_template_can_be_left_out() -> None:
    tokenizer = by_words("<s> $A", chat=GEMMA_LIKE)
    assert document_tokens(tokenizer, chat=False) == document_tokens(by_words("<s> $A"), chat=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('a system turn is missing') }}",
        "{{ no_such_thing.at_all }}",
        "{% for turn in messages %}{{ '<turn>' }}{% endfor %}",
        "{% for turn in messages if turn.role == 'user' %}{{ turn.content + '<stop>' }}{% endfor %}",
        "{{ messages[0].content + messages[0].content + messages[1].content }}",
        "{{ messages[1].content + '<turn>' + messages[0].content }}",
        "{% for turn in messages %}{{ turn.content[1:] + '<stop>' }}{% endfor %}",
        "{% for turn in messages",
    ],
)
def test_a_template_that_does_not_hold_both_turns_is_refused_in_one_line(template: str) -> None:
    with pytest.raises(ValueError, match="chat template of the backbone's tokenizer") as refused:
        document_tokens(by_words("<s> $A", chat=template), chat=True)
    assert "set `chat_template` to off" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_template_without_an_end_has_that_of_the_tokenizer() -> None:
    template = "{% for turn in messages %}{{ '<turn>' + turn.content }}{% endfor %}"
    assert document_tokens(by_words(chat=template), chat=True).end == (NUMBERS["</s>"],)


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_and_text_are_tokenised_as_they_are_within_the_conversation(
    tokenizer: ExtendedTokenizer, name: str
) -> None:
    """The parts, joined, are the tokens of the whole conversation: of trained and of real tokenizers."""
    words = with_template(tokenizer.text_tokenizer, TEMPLATES[name])
    extended = ExtendedTokenizer(words, len(words), 1, 1)
    document = extended.document
    for prompt, text in (("a good book has an end", "the river"), ("It", "A history, bad"), ("no", "red")):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        parts = [
            *document.begin,
            *extended.encode_opening(prompt),
            *document.between,
            *extended.encode_main_texts([text])[0].tolist(),
            *document.end,
        ]
        assert parts == words.apply_chat_template(turns, return_dict=False)


def test_a_template_that_names_the_day_gives_the_same_document_on_every_day(bpe: ExtendedTokenizer) -> None:
    template = "{{ strftime_now('%d %B %Y') + '\n' }}" + TEMPLATES["lines"]
    document = document_tokens(with_template(bpe.text_tokenizer, template), chat=True)
    assert bpe.text_tokenizer.decode(document.begin) == "26 Jul 2024\nuser\n"


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """A copy with a chat template."""
    copied = deepcopy(tokenizer)
    copied.chat_template = template
    return copied
