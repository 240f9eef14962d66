"""The caller's request body as the upstream side reads it."""

import asyncio
import math

from nanonets_proxy.errors import CallerTooSlow
from nanonets_proxy.server.caller_request import CallerRequest

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class CallerBody:
    """Reads a request's body, and sends `100 Continue` before the first wait for its bytes.

    `idle_timeout_s` bounds each wait for bytes, and `timeout_s` all waits together. Otherwise a body that trickles
    would hold its permit for ever.
    """

    __slots__ = (
        *("_body", "_connection", "_deadline_s", "_expect_continue"),
        *("_idle_timeout_s", "_timeout_s"),
    )

    def __init__(
        self, request: CallerRequest, *, expect_continue: bool, idle_timeout_s: float, timeout_s: float
    ) -> None:
        self._connection = request.connection
        self._body = request.body
        self._expect_continue = expect_continue
        self._idle_timeout_s = idle_timeout_s
        self._timeout_s = timeout_s
        self._deadline_s = math.inf

    def leave_unread(self) -> None:
        """Stops reading: while the request waits, the unread part of its body stays with the caller."""
        if not self._body.is_complete:
            self._connection.flow.shut()

    def read_nowait(self) -> bytes:
        """Returns the bytes that have arrived, or b"", and resumes reading. Raises BadRequest, ConnectionError."""
        if not self._body.is_complete:
            self._connection.flow.open_wide()
        return self._body.read_nowait()

    async def readany(self) -> bytes:
        """Returns the next bytes, b"" at the end. Raises BadRequest, CallerTooSlow, ConnectionError."""
        if (piece := self.read_nowait()) or self._body.is_complete:
            return piece
        if self._expect_continue:
            self._expect_continue = False
            # RFC 9110 §10.1.1: a server may omit the 100 if the body has begun to arrive.
            if not self._body.received_bytes and self._connection.transport is not None:
                self._connection.transport.write(_CONTINUE)
        now_s = asyncio.get_running_loop().time()
        if self._deadline_s == math.inf:
            self._deadline_s = now_s + self._timeout_s
        try:
            async with asyncio.timeout_at(min(now_s + self._idle_timeout_s, self._deadline_s)):
                return await self._body.readany()
        except TimeoutError:
            raise CallerTooSlow("The request's body did not arrive in time.") from None
