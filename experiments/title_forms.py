"""Forms of titles in which a language model may read them."""

import re

YEAR = re.compile(r"\s*\(\d{4}\)$")


def without_year(title: str) -> str:
    """A title without the year at its end.

    >>> without_year("The Matrix (1999)")
    'The Matrix'
    """
    return YEAR.sub("", title)
