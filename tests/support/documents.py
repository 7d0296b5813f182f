"""Tokenizers made by hand, with BOS, EOS, both, neither or a chat template."""

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = (
    "<unk> <s> </s> <turn> <stop> \n red blue yes no person machine has interacted with , will interact "
    "writes the following review for title : A user chose these items oldest first and next of candidates "
    "lamp chair door"
).split(" ")
NUMBERS = {word: number for number, word in enumerate(WORDS)}
SPECIAL = ("<s>", "</s>", "<turn>", "<stop>")

# Turns in the manner of two families of models, in words of this package.
GEMMA_LIKE = (
    "{{ bos_token }}{% for turn in messages %}"
    "{{ '<turn>' + {'user': 'person', 'assistant': 'machine'}[turn.role] + '\n' }}"
    "{{ turn.content | trim + '<stop>\n' }}{% endfor %}"
)
CHATML_LIKE = (
    "{% for turn in messages %}{{ '<turn>' + {'user': 'person', 'assistant': 'machine'}[turn.role] + ':' }}"
    "{{ turn.content + '<stop>' }}{% endfor %}"
)


def by_words(
    around: str = "$A", eos: str | None = "</s>", chat: str | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are `WORDS`.

    Args:
        around: tokens that it puts around a text, which is $A.
        eos: its EOS.
        chat: its chat template.
    """
    backend = Tokenizer(models.WordLevel(NUMBERS, unk_token="<unk>"))
    pieces = Regex(r"\n|\w+|[^\w\s]")
    backend.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[(word, NUMBERS[word]) for word in SPECIAL]
    )
    backend.add_special_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token=eos, unk_token="<unk>"
    )
    tokenizer.chat_template = chat
    return tokenizer


def numbers(text: str) -> list[int]:
    """Tokens of words with spaces between them, `|` for a line break; a number stays as it is."""
    words = text.replace("|", "\n").split(" ")
    return [int(word) if word.isdigit() else NUMBERS[word] for word in words if word]
