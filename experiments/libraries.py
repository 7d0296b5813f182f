"""Libraries that only the experiments need."""

import importlib
import sys
from types import ModuleType


def required_library(name: str, extra: str) -> ModuleType:
    """A library of an extra of this package.

    Args:
        name: of its module.
        extra: the extra in setup.cfg that installs it.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        sys.exit(f"error: this needs the library {name}: pip install -c constraints.txt '.[{extra}]'")
