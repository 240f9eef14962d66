"""GET /events: the status document once a second, as server-sent events (HTML Living Standard, §9.2).

All viewers share one reading a second, and without a viewer there is none. A viewer gets no event while it has not
read the earlier one, and loses its connection after `_MOST_SKIPPED` such events.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from nanonets_proxy.errors import ShuttingDown, TooManyConnections
from nanonets_proxy.server.connection.caller_request import CallerRequest
from nanonets_proxy.server.peers import reset

_INTERVAL_S: Final = 1.0
_MOST_SKIPPED: Final = 10
# A write takes 20 us or more, and 200 viewers may not delay callers by 200 of them.
_AT_ONCE: Final = 5
_RETRY_MS: Final = 1000  # after which a browser connects again, for example after a restart of the proxy


@dataclass(eq=False, slots=True)
class _Viewer:
    transport: asyncio.Transport
    ended: "asyncio.Future[None]"
    skipped: int = 0


class StatusEvents:
    """Sends the status to at most `most` viewers. Call `close` before the listener drains."""

    def __init__(self, read: Callable[[], bytes], most: int) -> None:
        self._read = read
        self._most = most
        self._viewers: dict[_Viewer, None] = {}
        self._latest = b""
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def send_to(self, request: CallerRequest) -> None:
        """Sends events until `close`, or until the viewer is dropped or cancelled.

        Raises TooManyConnections, ShuttingDown, or ConnectionError if the viewer has gone.
        """
        if self._is_closed:
            raise ShuttingDown("The proxy is shutting down.", retry_after_s=1.0)
        if len(self._viewers) >= self._most:
            raise TooManyConnections(f"{self._most} viewers watch the status already.", retry_after_s=10.0)
        transport = request.connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the viewer has gone")
        head = (
            "HTTP/1.1 200 OK\r\nServer: nanonets-proxy\r\nContent-Type: text/event-stream\r\n"
            f"Cache-Control: no-store\r\nConnection: close\r\nDate: {formatdate(usegmt=True)}\r\n\r\n"
        )
        if request.method == "HEAD":
            transport.write(head.encode())
            return
        if self._timer is None:
            self._read_latest()
        viewer = _Viewer(transport, asyncio.get_running_loop().create_future())
        self._viewers[viewer] = None
        try:
            transport.write(f"{head}retry: {_RETRY_MS}\n\n".encode() + self._latest)
            await viewer.ended
        finally:
            del self._viewers[viewer]

    def close(self) -> None:
        """Sends the last status, and ends all viewers."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._read_latest()
            self._send(self._viewers)
        self.end_viewers()

    def end_viewers(self) -> None:
        """Ends the streams of all viewers. Browsers connect again, and their new requests are checked."""
        for viewer in self._viewers:
            if not viewer.ended.done():
                viewer.ended.set_result(None)

    def _read_latest(self) -> None:
        self._latest = b"data: " + self._read() + b"\n\n"
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._viewers:
            self._read_latest()
            self._send_to_some(list(self._viewers))

    def _send_to_some(self, viewers: "list[_Viewer]") -> None:
        """Sends the latest status to the first viewers, and to the others in later turns of the loop."""
        self._send(viewers[:_AT_ONCE])
        if rest := viewers[_AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._send_to_some, rest)

    def _send(self, viewers: Iterable[_Viewer]) -> None:
        for viewer in viewers:
            if viewer.ended.done() or viewer.transport.is_closing():  # its task ends in a later turn of the loop
                continue
            if not viewer.transport.get_write_buffer_size():
                viewer.skipped = 0
                viewer.transport.write(self._latest)
                continue
            viewer.skipped += 1
            if viewer.skipped > _MOST_SKIPPED:
                reset(viewer.transport)
