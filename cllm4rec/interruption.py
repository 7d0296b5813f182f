"""Ctrl-C and SIGTERM of a command: it ends with the usual status, 130 or 143, and says nothing, whenever the signal comes.

Only a command begins to listen; importing the package changes nothing. This module imports what Python has loaded already.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What a command does about signals.

    Attributes:
        number: the signal that came; None if none has.
        is_command: whether the process is that of a command, and not of somebody who calls one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.is_command = False

    def end_at_once(self) -> None:
        """Libraries are being imported for a command: a signal ends it, as there is nothing to tidy up."""
        self.is_command = True
        _listen(self._exit)

    def leave(self) -> None:
        """A command has ended: after a signal with its status, whatever a library made of the signal; else signals come too
        late from now on."""
        if self.is_command and self.number is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(128 + self.number)  # half-imported libraries have much to say when they are taken down
        if self.is_command:
            _listen(signal.SIG_IGN)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block a signal is raised as KeyboardInterrupt or SystemExit, so that what is half-written goes."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        hook, sys.unraisablehook = sys.unraisablehook, self._again
        _listen(self._raise)
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)

    def _exit(self, number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _again(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised within a callback, with a traceback: the signal is sent once more instead."""
        if self.number is not None and issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            signal.raise_signal(self.number)
        else:
            sys.__unraisablehook__(unraisable)


def _listen(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script
            signal.signal(number, handler)


INTERRUPTION = Interruption()  # of this process
