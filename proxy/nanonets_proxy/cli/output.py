"""What a command tells the user: text on standard output, or a failure in one sentence."""

import os
import select
import sys
from typing import Final

_STDOUT, _STDERR = 1, 2
_LAST_STANDARD_FILE: Final = _STDERR


class CommandFailed(Exception):
    """The command cannot do its work. The message is one sentence for the user."""


class OutputFailed(Exception):
    """Standard output takes no more text. The message is one sentence for the user, or empty if nobody reads on."""


def write(text: str) -> None:
    """Writes `text` to standard output at once, with escapes for what its encoding lacks. Raises OutputFailed."""
    if sys.stdout is None:  # the descriptor was closed at start
        raise OutputFailed("standard output is closed")
    encoding = sys.stdout.encoding
    text = text.encode(encoding, "backslashreplace").decode(encoding)
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


def open_standard_files() -> None:
    """Opens those of the descriptors 0 to 2 that are closed, for this process and its forks only.

    For servers. Otherwise their log would fail, and a listener or a pipe could get such a number, which later gets
    another file. A program that this process executes finds closed what was closed.
    """
    for number in range(_LAST_STANDARD_FILE + 1):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, and is not inheritable (PEP 446)
    # Python has no such stream if the descriptor was closed at start.
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - for the life of the process


def _discard_output() -> None:
    """Prevents a second failure at exit, when the interpreter flushes the buffered text."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
