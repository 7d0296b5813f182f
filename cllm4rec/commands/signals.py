"""Ctrl-C and SIGTERM end a command silently with the usual status, 130 or 143, and leave no partial files.

Only commands handle signals; importing the package changes nothing. Python has loaded all imports of this
module already.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> None:
    """A command begins: from now on a signal ends the process."""
    for number in SIGNALS:
        # Signals are ignored in the background of a script.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def ignore() -> None:
    """A command has ended: further signals are ignored. Does nothing unless `listen` was called."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once; an exception could be lost in a library's callback, or abort there."""
    locks = sys.modules.get("cllm4rec.files.locks")
    # The module may be half imported, or a folder removed: the process ends in any case.
    with suppress(Exception):
        if locks is not None:
            locks.release_all()
    os._exit(128 + number)
