"""Ends a process that has finished its work, although threads of C libraries have not.

A process cannot end before its lookups of names do. With a name server that does not answer, that takes as long as
the system's resolver waits: 10 s and more, for a process whose callers have all been served.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

_WITHIN_S: Final = 3.0
"""Far more than the end of a healthy process takes, also on a busy machine."""


def exit_soon(code: int, flush: Callable[[], None]) -> None:
    """Ends the process with `code` in three seconds, if it has not ended by itself.

    `flush` writes what must not be lost.
    """

    def end() -> None:
        flush()
        os._exit(code)

    timer = threading.Timer(_WITHIN_S, end)
    timer.daemon = True
    timer.start()
