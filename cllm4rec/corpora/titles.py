"""Titles as a language model knows them: in the order of a sentence."""

import re

ARTICLES = "The|A|An|La|Le|Les|Il|Lo|El|Los|Las|Der|Die|Das|Den|Det|De"
# "Matrix, The" as a whole title, before the year, or in parentheses
INVERTED = re.compile(rf"([^()]+), ({ARTICLES}|L')(?=\s*(?:[()]|$))")


def natural_title(title: str) -> str:
    """A title of a catalogue as one writes it in a sentence: its article in front.

    >>> natural_title("Matrix, The (1999)")
    'The Matrix (1999)'
    >>> natural_title("Enfer, L' (1994)")
    "L'Enfer (1994)"
    """

    def reordered(found: re.Match[str]) -> str:
        words, article = found.groups()
        return f"{article}{'' if article.endswith(chr(39)) else ' '}{words}"

    return INVERTED.sub(reordered, title)
