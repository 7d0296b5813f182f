"""Validation of settings against the rules in their fields' metadata."""

import math
from dataclasses import fields
from typing import Any

LARGEST = 2**63 - 1  # of whole numbers


def check_settings(config: Any) -> None:
    """Refuse values that a field's metadata rules out: `choices`, `least` and `most` (both allowed), `above` or
    `below` (neither allowed); numbers that are none; and whole numbers beyond 64 bits.

    Raises:
        ValueError: names the setting, its value and what it may be.
    """
    for one in fields(config):
        value, rule = getattr(config, one.name), one.metadata
        if value is not None and "choices" in rule and value not in rule["choices"]:
            raise ValueError(f"{one.name} is {value!r}: it may be {', '.join(rule['choices'])}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{one.name} is {value}: give a number")
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{one.name} is {value}: whole numbers go up to {LARGEST}")
        if value is not None and "ge" in rule and value < rule["ge"]:
            raise ValueError(f"{one.name} is {value}: it may not be below {rule['ge']}")
        if value is not None and "le" in rule and value > rule["le"]:
            raise ValueError(f"{one.name} is {value}: it may not be above {rule['le']}")
        if value is not None and "gt" in rule and value <= rule["gt"]:
            raise ValueError(f"{one.name} is {value}: it has to be above {rule['gt']}")
        if value is not None and "lt" in rule and value >= rule["lt"]:
            raise ValueError(f"{one.name} is {value}: it has to be below {rule['lt']}")
