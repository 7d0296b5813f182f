"""Titles in the order of a sentence."""

import pytest

from cllm4rec.corpora.titles import natural_title


@pytest.mark.parametrize(
    ("title", "natural"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Grand Day Out, A", "A Grand Day Out"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("Postino, Il (Postman, The) (1994)", "Il Postino (The Postman) (1994)"),
        ("Priscilla, Queen of the Desert, The (1994)", "The Priscilla, Queen of the Desert (1994)"),
        ("Cry, the Beloved Country (1995)",) * 2,
        ("Sex, Lies, and Videotape (1989)",) * 2,
        ("Thing, The, Again",) * 2,
        ("The Matrix (1999)",) * 2,
        ("",) * 2,
    ],
)
def test_an_article_behind_a_title_is_put_in_front(title: str, natural: str) -> None:
    assert natural_title(title) == natural
    assert natural_title(natural) == natural
