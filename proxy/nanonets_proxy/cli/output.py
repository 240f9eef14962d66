"""What a command tells the user: text on standard output, or a failure in one sentence."""

import os
import select
import sys


class CommandFailed(Exception):
    """The command cannot do its work. The message is one sentence for the user."""


class OutputFailed(Exception):
    """Standard output takes no more text. The message is one sentence for the user, or empty if nobody reads on."""


def write(text: str) -> None:
    """Writes `text` to standard output at once. Raises OutputFailed."""
    if sys.stdout is None:  # the descriptor was closed at start
        raise OutputFailed("standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        raise OutputFailed from None
    except OSError as error:
        _discard_output()
        raise OutputFailed(f"standard output cannot be written: {(error.strerror or str(error)).lower()}") from None


def pause(seconds: float) -> None:
    """Waits. Raises OutputFailed as soon as nobody reads standard output any more.

    A command that rarely writes would otherwise run on, long after `head` has ended.
    """
    if sys.stdout is None:
        raise OutputFailed("standard output is closed")
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # an error and the end of the reader are always reported
    if reader.poll(seconds * 1000):
        _discard_output()
        raise OutputFailed


def _discard_output() -> None:
    """Prevents a second failure at exit, when the interpreter flushes the buffered text."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
