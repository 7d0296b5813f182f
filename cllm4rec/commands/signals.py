"""Ctrl-C and SIGTERM of a command: it ends with the usual status, 130 or 143, in silence, and nothing half-written stays.

Only a command listens; importing the package changes nothing. This module imports only modules that Python has loaded.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> None:
    """A command begins: a signal ends the process from now on."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script
            signal.signal(number, _end)


def ignore() -> None:
    """A command has ended: a signal comes too late. Nothing changes in a process that is not that of a command."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    """End at once. An exception instead would end in a library's callback, or abort the process there."""
    locks = sys.modules.get("cllm4rec.files.locks")
    with suppress(
        Exception
    ):  # the module is half imported, or a folder is gone: the process ends all the same
        if locks is not None:
            locks.release_all()
    os._exit(128 + number)
