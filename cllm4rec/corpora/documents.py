"""How a document begins and ends, asked of the backbone's tokenizer.

A document is a prompt and a main text. The tokenizer may put tokens around a text (BOS, EOS). A chat template
makes the prompt a user's turn and the main text the assistant's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cllm4rec.corpora.words import WordTokenizer
from cllm4rec.files.schema import STRICT
from cllm4rec.messages import library_errors

if TYPE_CHECKING:  # systems without a language model import no transformers
    from transformers import PreTrainedTokenizerBase

# Two prompts and two main texts. Those of a pair begin and end with different characters.
PROMPTS, MAIN_TEXTS = ("red", "blue"), ("yes", "no")
# Put before a chat template that names the day: a run does not depend on the day it is trained or served.
FIXED_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ '' }}"
ADVICE = ": set `chat_template` to off, or use another model"


@dataclass(frozen=True)
class DocumentTokens:
    """The tokens of a document that are neither of its prompt nor of its main text.

    Attributes:
        begin: before the prompt.
        between: after the prompt and before the main text; only a chat template has them.
        end: after a main text of words.
        chat: whether they are those of a chat template.
        prompt_spaced: whether a space comes between `begin` and a prompt's first word.
        text_spaced: whether a space comes before the first word of a main text.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    begin: tuple[int, ...]
    between: tuple[int, ...]
    end: tuple[int, ...]
    chat: bool = False
    prompt_spaced: bool = False
    text_spaced: bool = True


def document_tokens(
    text_tokenizer: "PreTrainedTokenizerBase", chat: bool, eos: Sequence[int] = ()
) -> DocumentTokens:
    """The tokens with which a tokenizer begins and ends a document.

    The end is what the tokenizer puts after a text. If that is nothing, it is the first of these:

    - the tokenizer's own EOS
    - a token of `eos` that is one of the tokenizer's added tokens, so that no word is taken for an end
      (nor the unknown token, which stands for words)
    - the tokens of a line break

    Args:
        text_tokenizer: of the backbone.
        chat: whether its chat template is used, if it has one.
        eos: EOS tokens that the backbone's configuration names.

    Raises:
        ValueError: there is no end, the special tokens change those of the text, or the chat template does
            not hold a user's turn and an assistant's.
    """
    words = WordTokenizer(text_tokenizer)
    in_chat = chat and text_tokenizer.chat_template is not None
    document = _chat(words) if in_chat else _plain(words)
    return document if document.end else replace(document, end=_end(words, eos))


def text_begin(words: WordTokenizer) -> tuple[int, ...]:
    """The tokens that a tokenizer puts before a text that needs no end.

    Raises:
        ValueError: the special tokens change those of the text.
    """
    return _plain(words).begin


def _plain(words: WordTokenizer) -> DocumentTokens:
    """What the tokenizer puts around a text."""
    text = PROMPTS[0]
    with library_errors(f"the {words.role}'s tokenizer cannot read a text"):
        whole: list[int] = words.text_tokenizer(text)["input_ids"]
    alone = words.plain(text)
    n = len(alone)
    starts = [start for start in range(len(whole) - n + 1) if n and whole[start : start + n] == alone]
    if not starts:
        raise ValueError(
            f"the {words.role}'s tokenizer reads {text!r} as {whole} with special tokens and as {alone} "
            "without: use a tokenizer whose special tokens leave those of a text as they are"
        )
    begin, end = tuple(whole[: starts[0]]), tuple(whole[starts[0] + n :])
    return DocumentTokens(begin, (), end, prompt_spaced=words.adds_space)


def _end(words: WordTokenizer, eos: Sequence[int]) -> tuple[int, ...]:
    """The end of a document where the tokenizer puts nothing after a text.

    Raises:
        ValueError: there is none.
    """
    tokenizer = words.text_tokenizer
    if tokenizer.eos_token_id is not None:
        return (int(tokenizer.eos_token_id),)
    for token in eos:
        if token in tokenizer.added_tokens_decoder and token != tokenizer.unk_token_id:
            return (token,)
    word = words.plain(PROMPTS[0])
    with_break = words.plain(f"{PROMPTS[0]}\n")
    line_break = tuple(with_break[len(word) :])
    if with_break[: len(word)] != word or not line_break or tokenizer.unk_token_id in line_break:
        raise ValueError(
            "the backbone's tokenizer has no end token (eos_token) and no tokens for a line break: set an "
            "eos_token in its folder"
        )
    return line_break


class _Turn(NamedTuple):
    """The text of a turn: its tokens [start, end) of a conversation, and whether a space comes before it."""

    start: int
    end: int
    spaced: bool


def _chat(words: WordTokenizer) -> DocumentTokens:
    """What the chat template puts around the turns of a user and an assistant.

    Conversations that differ in one turn have equal tokens before and after it.
    """
    conversation = _rendered(words, PROMPTS[0], MAIN_TEXTS[0])
    other_prompt = _rendered(words, PROMPTS[1], MAIN_TEXTS[0])
    other_text = _rendered(words, PROMPTS[0], MAIN_TEXTS[1])
    prompt = _located(words, conversation, other_prompt, PROMPTS[0])
    text = _located(words, conversation, other_text, MAIN_TEXTS[0])
    if prompt is None or text is None or prompt.end > text.start:
        raise ValueError(
            f"the chat template of the backbone's tokenizer does not hold one turn of a user and one of an "
            f"assistant as they are{ADVICE}"
        )
    return DocumentTokens(
        begin=tuple(conversation[: prompt.start]),
        between=tuple(conversation[prompt.end : text.start]),
        end=tuple(conversation[text.end :]),
        chat=True,
        prompt_spaced=prompt.spaced,
        text_spaced=text.spaced,
    )


def _rendered(words: WordTokenizer, prompt: str, main_text: str) -> list[int]:
    """Tokens of a conversation of two turns, special ones included."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": main_text}]
    with library_errors("the chat template of the backbone's tokenizer fails", ADVICE):
        template = FIXED_DAY + words.text_tokenizer.get_chat_template()
        rendered: Any = words.text_tokenizer.apply_chat_template(
            turns, chat_template=template, return_dict=False
        )
    return [int(token) for token in rendered]


def _n_equal(tokens: list[int], others: list[int]) -> int:
    """Number of tokens at the beginning that are equal."""
    pairs = zip(tokens, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _located(words: WordTokenizer, conversation: list[int], other: list[int], text: str) -> _Turn | None:
    """Where the text of a turn is, None if nowhere; `other` is a conversation that differs in that turn."""
    start = _n_equal(conversation, other)
    end = len(conversation) - _n_equal(conversation[::-1], other[::-1])
    for spaced in (True, False):
        tokens = words.following([text], spaced)[0]
        first = end - len(tokens)  # of a space too, which may be a token of its own in both conversations
        if 0 <= first <= start and conversation[first:end] == tokens:
            return _Turn(first, end, spaced)
    return None
