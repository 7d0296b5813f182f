"""The picture of the README: a history as a prompt, the language model, and the list.

    python -m experiments.prompt_figure --output docs/figures/prompt.svg

Data: datasets/bookshop. The list is the one that the README's commands write.

Prints nothing; the picture is written to FILE.
"""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl

from experiments.commands import argument_parser, ends_in_one_line

BOOKSHOP = Path(__file__).parents[1] / "datasets" / "bookshop"
READER = "reader-0109"
LIST = {"book-0078": 3.23, "book-0072": 3.04, "book-0051": 2.50, "book-0065": 2.29, "book-0084": 2.27}
WIDTH, HEIGHT = 880, 396
MARGIN, TOKEN_HEIGHT, MONO_WIDTH = 24, 22, 0.61  # MONO_WIDTH: of a character, in font sizes

INK, MUTED, LINE, BACKGROUND = "#1f2328", "#59636e", "#8c959f", "#ffffff"
USER, ITEM, WORD = ("#dbeafe", "#1d4ed8"), ("#ffe8d1", "#b45309"), ("#eff1f3", "#424a53")  # fill, text
SANS, MONO = "Helvetica, Arial, sans-serif", "DejaVu Sans Mono, Menlo, Consolas, monospace"


def text(
    parent: ET.Element,
    x: float,
    y: float,
    content: str,
    size: int = 12,
    color: str = INK,
    font: str = SANS,
    anchor: str = "start",
    weight: str = "normal",
) -> None:
    """A line of text on the baseline y."""
    style = {"font-family": font, "font-size": f"{size}", "fill": color}
    style |= {"text-anchor": anchor, "font-weight": weight}
    ET.SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", **style}).text = content


def heading(parent: ET.Element, x: float, y: float, content: str, note: str = "") -> None:
    """A heading, and a note after it."""
    text(parent, x, y, content, 14, weight="bold")
    style = {"dx": "6", "font-size": "12", "font-weight": "normal", "fill": MUTED}
    ET.SubElement(parent[-1], "tspan", style).text = note


def box(
    parent: ET.Element, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none"
) -> None:
    """A rectangle with round corners."""
    shape = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}", "rx": "4"}
    ET.SubElement(parent, "rect", {**shape, "fill": fill, "stroke": stroke})


def arrow(parent: ET.Element, *points: tuple[float, float]) -> None:
    """A line through the points, with a head at the last."""
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    style = {"fill": "none", "stroke": LINE, "stroke-width": "1.5", "marker-end": "url(#head)"}
    ET.SubElement(parent, "polyline", {"points": line, **style})


def tokens(parent: ET.Element, x: float, y: float, words: list[tuple[str, tuple[str, str]]]) -> None:
    """A row of tokens, each in its color; y is the upper edge."""
    for content, (fill, color) in words:
        width = 11 * MONO_WIDTH * len(content) + 10
        box(parent, x, y, width, TOKEN_HEIGHT, fill)
        text(parent, x + width / 2, y + 15, content, 11, color, MONO, "middle")
        x += width + 4


def words_of(sentence: str) -> list[tuple[str, tuple[str, str]]]:
    """The words of a sentence as tokens."""
    return [(word, WORD) for word in sentence.split()]


def draw() -> ET.Element:
    """The whole picture."""
    titles = dict(pl.read_csv(BOOKSHOP / "items.csv").select("item_id", "title").iter_rows())
    events = pl.read_csv(BOOKSHOP / "events.csv")
    read = events.filter(user_id=READER)["item_id"].to_list()
    size = {"width": f"{WIDTH}", "height": f"{HEIGHT}", "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
    picture = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img"})
    ET.SubElement(picture, "title").text = "A history as a prompt, the language model, and its list"
    head = {"id": "head", "viewBox": "0 0 8 8", "refX": "7", "refY": "4", "orient": "auto"}
    marker = ET.SubElement(
        ET.SubElement(picture, "defs"), "marker", {**head, "markerWidth": "7", "markerHeight": "7"}
    )
    ET.SubElement(marker, "path", {"d": "M0,0 L8,4 L0,8 z", "fill": LINE})
    box(picture, 0.5, 0.5, WIDTH - 1, HEIGHT - 1, BACKGROUND, "#d1d9e0")
    draw_prompts(picture, titles, read)
    draw_model(picture, events["user_id"].n_unique(), len(titles))
    draw_list(picture, titles, read)
    ET.indent(picture)
    return picture


def draw_prompts(picture: ET.Element, titles: dict[str, str], read: list[str]) -> None:
    """The prompts of a history and of a title."""
    heading(picture, MARGIN, 34, "Prompts", "a token for each user and each item, and words")
    history = [(READER, USER), *words_of("has interacted with"), *((item, ITEM) for item in read[:3])]
    history += [("...", WORD), (READER, USER), *words_of("will interact with")]
    title = [(read[0], ITEM), *words_of(f"has the following title: {titles[read[0]]}")]
    tokens(picture, MARGIN, 48, history)
    tokens(picture, MARGIN, 78, title)


def draw_model(picture: ET.Element, n_users: int, n_items: int) -> None:
    """The vocabulary and the language model."""
    left, top, width = MARGIN, 162, 190
    arrow(picture, (left + width / 2, 106), (left + width / 2, top - 28))
    heading(picture, left, top - 10, "Extended vocabulary")
    y: float = top
    for name, (fill, color), height in [
        ("words", WORD, 84),
        ("200 users", USER, 44),
        ("100 items", ITEM, 44),
    ]:
        box(picture, left, y, width, height, fill, color)
        text(picture, left + width / 2, y + height / 2 + 4, name, 12, color, anchor="middle")
        y += height + 6
    arrow(picture, (left + width + 6, 248), (262, 248))
    box(picture, 266, top, 150, 184, "#f6f8fa", INK)
    text(picture, 341, 238, "Language model", 14, anchor="middle", weight="bold")
    text(picture, 341, 258, "a causal model", 12, MUTED, anchor="middle")
    text(picture, 341, 274, "of Hugging Face", 12, MUTED, anchor="middle")
    arrow(picture, (420, 248), (500, 248))
    text(picture, 458, 238, "state", 12, anchor="middle")
    arrow(picture, (left + width / 2, 348), (left + width / 2, 374), (458, 374), (458, 256))
    text(picture, 341, 368, "item embeddings", 12, anchor="middle")


def draw_list(picture: ET.Element, titles: dict[str, str], read: list[str]) -> None:
    """The softmax over the items, and the titles of the best."""
    left, bars, top, best = 508, 588, 162, max(LIST.values())
    heading(picture, left, top - 10, "Softmax over the items", "and the list")
    for row, (item, score) in enumerate(LIST.items()):
        y = top + 30 * row
        tokens(picture, left, y, [(item, ITEM)])
        box(picture, bars, y + 5, 40 * math.exp(score - best), 12, ITEM[1])
        text(picture, 636, y + 15, f"{row + 1}.  {titles[item]}")
    y = top + 30 * len(LIST)
    text(picture, left + 4, y + 13, "...", 12, MUTED)
    tokens(picture, left, y + 26, [(read[0], ITEM)])
    text(picture, bars, y + 41, "left out: in the history", 12, MUTED)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="picture to write (.svg)")
    with ends_in_one_line():
        parser.parse_args().output.write_text(ET.tostring(draw(), encoding="unicode") + "\n")
