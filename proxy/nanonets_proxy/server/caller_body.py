"""The caller's request body as the upstream side reads it."""

import asyncio
import math
from typing import TYPE_CHECKING, cast

from aiohttp import web

from nanonets_proxy.errors import BadRequest, CallerTooSlow

if TYPE_CHECKING:
    from nanonets_proxy.server.caller_connection import CallerConnection

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class CallerBody:
    """aiohttp's stream, with `100 Continue` sent when bytes are first wanted, and errors by our names.

    `idle_timeout_s` bounds each wait for bytes, `timeout_s` the time from the first such wait to the last: a body
    that trickles would hold its permit for ever.
    """

    __slots__ = (
        "_content",
        "_deadline_s",
        "_expect_continue",
        "_idle_timeout_s",
        "_request",
        "_timeout_s",
        "_valve",
    )

    def __init__(
        self, request: web.BaseRequest, *, expect_continue: bool, idle_timeout_s: float, timeout_s: float
    ) -> None:
        self._request = request
        self._content = request.content
        self._valve = cast("CallerConnection", request.protocol).valve
        self._expect_continue = expect_continue
        self._idle_timeout_s = idle_timeout_s
        self._timeout_s = timeout_s
        self._deadline_s = math.inf

    def leave_unread(self) -> None:
        """The request waits: what has not come yet stays with the caller."""
        if not self._content.is_eof():
            self._valve.shut()

    def read_nowait(self) -> bytes:
        """What has come, b"" where nothing has; more is wanted from now on. Raises BadRequest, ConnectionError."""
        if not self._content.is_eof():
            self._valve.open_wide()
        try:
            return self._content.read_nowait()
        except web.RequestPayloadError:
            raise BadRequest("The request's body is malformed.") from None

    async def readany(self) -> bytes:
        """The next bytes, b"" at the end. Raises BadRequest, CallerTooSlow, ConnectionError."""
        if (piece := self.read_nowait()) or self._content.is_eof():
            return piece
        if self._expect_continue:
            self._expect_continue = False
            # RFC 9110 §10.1.1: no 100 for a caller that did not wait for it.
            if not self._content.total_bytes and self._request.transport is not None:
                self._request.transport.write(_CONTINUE)
        now_s = asyncio.get_running_loop().time()
        if self._deadline_s == math.inf:
            self._deadline_s = now_s + self._timeout_s
        try:
            async with asyncio.timeout_at(min(now_s + self._idle_timeout_s, self._deadline_s)):
                return await self._content.readany()
        except TimeoutError:
            raise CallerTooSlow("The request's body did not come in time.") from None
        except web.RequestPayloadError:
            raise BadRequest("The request's body is malformed.") from None
