"""Conditions on items, such as `year >= 1990 and categories.contains("Drama")`: a text -> a mask of items.

The text is parsed, and no part of it is run: it may hold columns, texts, numbers, comparisons, `and`, `or`,
`not`, `contains` and `is_in`.
"""

import ast
import warnings
from collections.abc import Callable, Mapping
from unicodedata import normalize

import numpy as np
import polars as pl

from cllm4rec.data.column_names import JOINERS
from cllm4rec.messages import error_line, escaped, is_unicode, join_names, shorten

LONGEST = 2_000  # characters of a condition
CATEGORIES = "categories"
COMPARISONS: dict[type[ast.cmpop], Callable[[pl.Expr, object], pl.Expr]] = {
    ast.Eq: pl.Expr.eq,
    ast.NotEq: pl.Expr.ne,
    ast.Lt: pl.Expr.lt,
    ast.LtE: pl.Expr.le,
    ast.Gt: pl.Expr.gt,
    ast.GtE: pl.Expr.ge,
}
MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
EXAMPLE = """'year >= 1990 and not categories.contains("Drama")'"""


def matching_items(condition: str, items: pl.DataFrame) -> np.ndarray:
    """The items of a table that fulfil a condition, bool (n_items,).

    - `title == "Heat"`, `year >= 1990`, `1990 <= year < 2000`: a column and a text or a number. A column is
      compared with a number by its numbers; cells that are none fulfil no comparison, nor its negation.
    - `title.contains("Star")`: the cell holds this text. `brand.is_in(["A", "B"])`: it is one of these.
    - Of `categories`, `contains` and `is_in` mean one whole category. One that has a comma and a space in its
      name is several.
    - `and`, `or`, `not` and brackets.

    Args:
        condition: as typed.
        items: `item_id` and text columns.

    Raises:
        ValueError: the condition is no such expression, or names another column.
    """
    if not isinstance(condition, str):
        raise ValueError(f"`where` is {_shown(condition)}: expected a text, as in {EXAMPLE}")
    if len(condition) > LONGEST:
        raise ValueError(f"`where` has {len(condition):,} characters: write at most {LONGEST:,}")
    text = condition.strip()
    if not is_unicode(text):
        raise ValueError(f"`where` {_shown(text)} is no Unicode text: write it as UTF-8")
    if not text:
        raise ValueError(f"`where` is empty: write it as in {EXAMPLE}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a comparison by `is`
            tree = ast.parse(text, mode="eval").body
        matches = _Parser(text, items.schema).condition(tree)
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error_line(error)
        raise _refusal(text, f"cannot be read ({reason})") from error
    return items.with_columns(matches.fill_null(False).alias("item_id"))["item_id"].to_numpy()


def _shown(text: object) -> str:
    return shorten(escaped(repr(text)))


def _refusal(text: str, what: str) -> ValueError:
    return ValueError(f"`where` {_shown(text)} {what}: write it as in {EXAMPLE}")


class _Parser:
    """Makes Polars expressions of the nodes of a parsed condition."""

    def __init__(self, text: str, columns: Mapping[str, pl.DataType]) -> None:
        self.text, self.columns = text, columns

    def condition(self, node: ast.expr) -> pl.Expr:
        """The expression of a condition, Boolean; null where it is not known."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return pl.all_horizontal(*map(self.condition, node.values))
            case ast.BoolOp():
                return pl.any_horizontal(*map(self.condition, node.values))
            case ast.UnaryOp(op=ast.Not()):
                return ~self.condition(node.operand)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(
                func=ast.Attribute(value=of, attr="contains"),
                args=[ast.Constant(value=str()) as part],
                keywords=[],
            ):
                column, text = self._column(of), str(self._value(part))
                if column == CATEGORIES:
                    return self._equals(column, text)
                return _texts(column).str.contains(text, literal=True)
            case ast.Call(
                func=ast.Attribute(value=of, attr="is_in"),
                args=[ast.List(elts=values) | ast.Tuple(elts=values)],
                keywords=[],
            ):
                column = self._column(of)
                return pl.any_horizontal(
                    pl.lit(False), *(self._equals(column, self._value(each)) for each in values)
                )
        raise self._refusal(node, "is no condition")

    def _comparison(self, node: ast.Compare) -> pl.Expr:
        """A comparison of a column and a value, or a chain of them."""
        sides = [node.left, *node.comparators]
        parts = []
        for left, operator, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            kind = type(operator)
            if kind not in COMPARISONS:
                raise self._refusal(
                    node, "compares otherwise than by ==, !=, <, <=, > and >=; there is is_in"
                )
            if isinstance(right, ast.Name):
                left, right, kind = right, left, MIRRORED.get(kind, kind)
            parts.append(self._compared(kind, self._column(left), self._value(right)))
        return pl.all_horizontal(*parts)

    def _compared(self, kind: type[ast.cmpop], column: str, value: str | float) -> pl.Expr:
        """The cells of a column compared with a text, or by their numbers with a number."""
        if isinstance(value, str):
            return COMPARISONS[kind](_texts(column), pl.lit(value))
        cells = pl.col(column)
        if isinstance(value, int) and abs(value) < 2**63 and self.columns[column].is_integer():
            return COMPARISONS[kind](cells, pl.lit(value))  # exact, also beyond 2^53
        numbers = cells.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
        return COMPARISONS[kind](numbers, pl.lit(_number(value)))

    def _equals(self, column: str, value: str | float) -> pl.Expr:
        """Whether the cells of a column are a value, or hold it as a category."""
        if column == CATEGORIES and isinstance(value, str):
            return _texts(column).str.split(JOINERS[CATEGORIES] or ", ").list.contains(value)
        return self._compared(ast.Eq, column, value)

    def _column(self, node: ast.expr) -> str:
        """The column that a node names."""
        if not isinstance(node, ast.Name):
            raise self._refusal(node, "is not the name of a column")
        if node.id not in self.columns:
            raise ValueError(
                f"`where` {_shown(self.text)}: the items have no column {node.id!r}, but "
                f"{join_names([*self.columns])}: name one of these, or keep it in the dataset "
                "(--item-attributes of prepare, item_attributes in Python)"
            )
        return node.id

    def _value(self, node: ast.expr) -> str | float:
        """A text or a number."""
        match node:
            case ast.Constant(value=str() as text):
                return normalize("NFC", text)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                value = self._value(node.operand)
                if not isinstance(value, str):
                    return -value
        raise self._refusal(node, "is neither a text in quotes nor a number")

    def _refusal(self, node: ast.expr, what: str) -> ValueError:
        part = ast.get_source_segment(self.text, node) or self.text
        return _refusal(self.text, f"cannot be read ({_shown(part)} {what})")


def _texts(column: str) -> pl.Expr:
    """The cells of a column as texts; letters with accents are the same in either form of Unicode."""
    return pl.col(column).cast(pl.String).str.normalize("NFC")


def _number(number: float) -> float:
    """A number as a float; infinite if it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
