"""What has changed since training in the prompts and documents that a language model reads."""

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from cllm4rec.corpora.documents import DocumentTokens
from cllm4rec.messages import MAX_VALUE_CHARACTERS, shorten

BEFORE_CHANGE = 20  # characters that are shown before the first difference of long texts
TOKENS = ("begin", "between", "end")  # attributes of `DocumentTokens`
CHOICES = {  # further attributes -> name in messages
    "chat": "chat template",
    "prompt_spaced": "space before a prompt",
    "text_spaced": "space before a main text",
}


def template_changes(trained_with: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Prompts with another wording than in training, each with both.

    Args:
        trained_with: name of a prompt -> its wording in training. It has all names of `now`.
        now: name of a prompt -> its wording here.
    """
    return [
        _change(name, trained_with[name], wording)
        for name, wording in now.items()
        if trained_with[name] != wording
    ]


def document_changes(
    trained_with: DocumentTokens, now: DocumentTokens, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """How documents begin and end otherwise than in training, as text.

    Args:
        trained_with: the tokens of training.
        now: the tokens here.
        tokenizer: of both.
    """
    changes = []
    for name in TOKENS:
        before, after = getattr(trained_with, name), getattr(now, name)
        if before != after:
            texts = _text(before, tokenizer), _text(after, tokenizer)
            changes.append(
                f"{name}: tokens {shorten(str(list(before)))}, now {shorten(str(list(after)))}"
                if None in texts or texts[0] == texts[1]
                else _change(name, str(texts[0]), str(texts[1]))
            )
    for name, title in CHOICES.items():
        if getattr(trained_with, name) != getattr(now, name):
            changes.append(f"{title}: no, now yes" if getattr(now, name) else f"{title}: yes, now no")
    return changes


def _text(tokens: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The tokens as text, special ones included; None if the tokenizer lacks one of them."""
    if not all(0 <= token < len(tokenizer) for token in tokens):
        return None
    return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


def _change(name: str, before: str, now: str) -> str:
    """A text in training and here; of long ones the part from shortly before their first difference."""
    if max(len(before), len(now)) > MAX_VALUE_CHARACTERS:
        pairs = enumerate(zip(before, now, strict=False))
        shared = next((place for place, (old, new) in pairs if old != new), min(len(before), len(now)))
        begin = max(0, shared - BEFORE_CHANGE)
        dots = "..." if begin else ""
        before, now = dots + before[begin:], dots + now[begin:]
    return f"{name}: {shorten(repr(before))}, now {shorten(repr(now))}"
