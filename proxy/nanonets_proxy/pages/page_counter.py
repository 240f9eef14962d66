"""Has another process (`counting_process.py`) count the pages of uploads, and keeps that process running.

| state | event | next state |
|---|---|---|
| STOPPED | `start` | STARTING |
| STARTING: the process loads its library | it says that it is ready | READY |
| | it ends | PAUSED |
| READY: each job gets its result | the process ends, as after a hostile file | PAUSED |
| PAUSED: for a second, and up to a minute after further ends in a row | the pause is over | STARTING |
| any | `close` | STOPPED |

In any other state than READY, the pages of an upload are unknown.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.pages.protocol import JOB, MAX_TYPE_BYTES, RESULT, UNKNOWN

_MAX_START_S: Final = 5.0
_MAX_JOBS: Final = 32  # at once
_FIRST_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 60.0
_READ_BYTES: Final = 64 * RESULT.size

# The process imports the same modules as this one. It gets no variables: they may hold secrets.
_CODE: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from nanonets_proxy.pages.counting_process import run; run(int(sys.argv[1]))"
)


def can_count_pages() -> bool:
    """Returns whether the library that counts the pages of PDFs is installed."""
    return find_spec("pypdfium2_raw") is not None


class PageCounter:
    """Counts the pages of uploads. Call `start` first, and `close` last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._ready = asyncio.Event()
        self._results: dict[int, asyncio.Future[int | None]] = {}
        self._last_job = 0
        self._received = b""
        self._pause_s = _FIRST_PAUSE_S
        self._restart: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Starts the process. Returns when the process is ready, or after some seconds."""
        self._start()
        await wait_at_most(self._ready, _MAX_START_S)

    def close(self) -> None:
        """Ends the process."""
        if self._restart is not None:
            self._restart.cancel()
        self._end()

    def count(
        self, content_type: bytes, upload: int | Sequence[bytes], within_s: float
    ) -> "asyncio.Future[int | None]":
        """Returns a future of the number of pages of an upload, which is done after `within_s` at most.

        Its result is None if the number is unknown. `upload` is a file descriptor, or the pieces of the body.
        """
        pages: asyncio.Future[int | None] = self._loop.create_future()
        if self._socket is None or not self._ready.is_set() or len(self._results) >= _MAX_JOBS:
            pages.set_result(None)
            return pages
        self._last_job = number = self._last_job % 0xFFFF_FFFF + 1
        content_type = content_type[:MAX_TYPE_BYTES]
        try:
            file = upload if isinstance(upload, int) else _memory_file(upload)
            try:
                socket.send_fds(self._socket, [JOB.pack(number, len(content_type), content_type)], [file])
            finally:
                if file is not upload:
                    os.close(file)
        except OSError:  # the process has too many jobs or has ended, or there is no memory
            pages.set_result(None)
            return pages
        self._results[number] = pages
        timer = self._loop.call_later(within_s, self._finish, number, UNKNOWN)
        pages.add_done_callback(lambda _: timer.cancel())
        return pages

    def _finish(self, number: int, pages: int) -> None:
        future = self._results.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None if pages == UNKNOWN else pages)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no part of the command comes from outside
                [sys.executable, "-I", "-c", _CODE, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                pass_fds=[theirs.fileno()],
            )
        except OSError:  # the system allows no further process
            ours.close()
            self._start_later()
        else:
            self._socket = ours
            self._loop.add_reader(ours.fileno(), self._on_results)
        finally:
            theirs.close()

    def _on_results(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            self._start_later()
            return
        data = self._received + data
        whole = len(data) - len(data) % RESULT.size
        self._received = data[whole:]
        for number, pages in RESULT.iter_unpack(data[:whole]):
            if number:
                self._pause_s = _FIRST_PAUSE_S
                self._finish(number, pages)
            else:
                self._ready.set()

    def _end(self) -> None:
        """Ends the process, if it has not ended, and all jobs."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._ready.clear()
        self._received = b""
        for number in list(self._results):
            self._finish(number, UNKNOWN)

    def _start_later(self) -> None:
        self._restart = self._loop.call_later(self._pause_s, self._start)
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)


def _memory_file(pieces: Sequence[bytes]) -> int:
    """Returns the descriptor of a new file with these bytes, in memory where the system can do that."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("upload")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            descriptor = os.dup(file.fileno())
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        for piece in pieces:
            file.write(piece)
    return descriptor
