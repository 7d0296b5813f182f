"""Settings as dataclass fields: help text and rules in their metadata, and the validation of these rules."""

import math
import operator
from dataclasses import MISSING, field, fields
from typing import Any

LARGEST_INTEGER = 2**63 - 1
BOUNDS = (
    ("ge", operator.ge, "it may not be below"),
    ("le", operator.le, "it may not be above"),
    ("gt", operator.gt, "it has to be above"),
    ("lt", operator.lt, "it has to be below"),
)


def setting(default: Any = MISSING, *, help: str, **rules: Any) -> Any:
    """A dataclass field that is a setting, hence a flag of the commands.

    Args:
        default: value if not given; a setting without a default is required.
        help: text of the flag in `--help`.
        rules: `choices`; bounds `ge`, `le`, `gt` and `lt`; `auto`: None, typed as "auto", is chosen on
            validation events; `advanced`: listed last in `--help`; `metavar`: name of the value in `--help`.
    """
    return field(default=default, metadata={"help": help, **rules})


def check_settings(config: Any) -> None:
    """Refuse values against the rules of their fields, numbers not finite, and integers over 64 bits.

    Raises:
        ValueError: names the setting, its value and the rule.
    """
    for each in fields(config):
        name, value, rules = f"`{each.name}`", getattr(config, each.name), each.metadata
        if value is None:
            continue
        if "choices" in rules and value not in rules["choices"]:
            raise ValueError(f"{name} is {value!r}: it may be {', '.join(rules['choices'])}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}: give a finite number")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"{name} is {value}: the largest integer is {LARGEST_INTEGER}")
        for rule, holds, demand in BOUNDS:
            if rule in rules and not holds(value, rules[rule]):
                raise ValueError(f"{name} is {value}: {demand} {rules[rule]}")
