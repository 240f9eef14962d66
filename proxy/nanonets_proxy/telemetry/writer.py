"""Lines to standard output without ever blocking the event loop.

A pipe whose reader is slow blocks its writer; in a proxy that would stall every caller. So lines are
collected here and written in batches by a thread of their own. The buffer is bounded: beyond it lines
are dropped and counted, and the next batch says how many.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final

_BATCH_DELAY_S: Final = 0.02
_MAX_BUFFERED_LINES: Final = 20_000
_CLOSE_TIMEOUT_S: Final = 2.0


class LineWriter:
    """`redact` is applied to each batch before it is written: the last place that a secret could pass."""

    def __init__(self, stream: BinaryIO, redact: Callable[[bytes], bytes]) -> None:
        self._stream = stream
        self._redact = redact
        self._lines: deque[bytes] = deque()  # its ends are safe to use from two threads
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Takes a line without its end."""
        if len(self._lines) >= _MAX_BUFFERED_LINES:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Writes what is left, waiting for a slow reader no longer than a moment."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        dropped_before = 0
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_DELAY_S)
            self._wake.clear()
            self._flush()
            if self.dropped > dropped_before:
                self.write(b'{"event": "log_lines_dropped", "level": "error", "total": %d}' % self.dropped)
                dropped_before = self.dropped
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        try:
            self._stream.write(self._redact(b"\n".join(lines) + b"\n"))
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)  # the reader has gone; there is nowhere left to say so
