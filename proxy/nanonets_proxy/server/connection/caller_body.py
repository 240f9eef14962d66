"""The caller's request body as the upstream side reads it, and how a body that arrives too slowly ends.

A caller that sends slowly must not keep a place in flight from others. So four limits apply to the wait for its
bytes. Only time in which the proxy waits for the caller counts:

| limit | after it |
|---|---|
| `_PAUSE_AFTER_S` of waiting for less than `_RESUME_BYTES` | the request gives its place back until they arrive |
| `idle_timeout_s` without a byte | CallerTooSlow |
| `RATE_PERIOD_S` of waiting, at less than `min_rate_bytes_s` | CallerTooSlow |
| `timeout_s` since the first wait, without the wait for a permit | CallerTooSlow |
"""

import asyncio
import math
from typing import Final, Protocol

from nanonets_proxy.errors import CallerTooSlow
from nanonets_proxy.server.connection.body_times import BodyTimes
from nanonets_proxy.server.connection.caller_request import CallerRequest

RATE_PERIOD_S: Final = 30.0
_PAUSE_AFTER_S: Final = 0.05  # others then wait less than a tenth of a second for the place
_RESUME_BYTES: Final = 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Place(Protocol):
    """The place in flight of the request."""

    def pause(self, body: "CallerBody") -> None:
        """Gives the place back. May call `give_up` of a body that is paused."""

    async def resume(self) -> None:
        """Waits for a place."""


class CallerBody:
    """Reads a request's body, and sends `100 Continue` before the first wait for its bytes."""

    __slots__ = (
        *("_body", "_connection", "_deadline_s", "_expect_continue", "_pause_in_s", "_period_from_bytes"),
        *("_period_left_s", "_quick_from_bytes", "_times", "place"),
    )

    def __init__(self, request: CallerRequest, times: BodyTimes, *, expect_continue: bool) -> None:
        self.place: Place | None = None
        """Set once the request has a permit."""
        self._connection = request.connection
        self._body = request.body
        self._times = times
        self._expect_continue = expect_continue
        self._deadline_s = math.inf
        self._period_left_s = RATE_PERIOD_S
        self._period_from_bytes = 0  # bytes received when the period began
        self._pause_in_s = _PAUSE_AFTER_S
        self._quick_from_bytes = 0  # bytes received when `_pause_in_s` was last reset

    def leave_unread(self) -> None:
        """Stops reading: while the request waits, the unread part of its body stays with the caller."""
        if not self._body.is_complete:
            self._connection.flow.shut()

    def give_up(self) -> None:
        """Ends the body as too slow, because too many bodies are paused."""
        self._body.give_up("The request's body arrives too slowly, and too many requests are as slow.")

    async def wait_for_start(self) -> None:
        """Waits until the first bytes are here, or `100 Continue` is due. Raises CallerTooSlow."""
        if not self._expect_continue:
            await self._wait_for(1, math.inf)
            self._deadline_s = math.inf  # the wait for a permit follows, and does not count

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
        if self.place is None:
            await self._wait_for(1, math.inf)
        elif not await self._wait_for(1, self._pause_in_s):
            self.place.pause(self)
            await self._wait_for(_RESUME_BYTES, math.inf)
            await self.place.resume()
        return self._body.read_nowait()

    async def _wait_for(self, count: int, at_most_s: float) -> bool:
        """Waits until `count` bytes are here, or the end. Returns False after `at_most_s`. Raises CallerTooSlow."""
        body, loop = self._body, asyncio.get_running_loop()
        now_s = loop.time()
        body.want_since(now_s)
        try:
            return await self._wait_since(now_s, count, at_most_s, loop)
        finally:
            body.want_since(math.inf)

    async def _wait_since(
        self, now_s: float, count: int, at_most_s: float, loop: asyncio.AbstractEventLoop
    ) -> bool:
        body, times = self._body, self._times
        give_up_at_s = now_s + at_most_s
        if self._deadline_s == math.inf:
            self._deadline_s = now_s + times.timeout_s
        while body.buffered_bytes < count and not body.is_complete:
            began_s = now_s
            rate_at_s = now_s + self._period_left_s if times.min_rate_bytes_s else math.inf
            too_slow_at_s = min(now_s + times.idle_timeout_s, self._deadline_s)
            timed_out = False
            try:
                async with asyncio.timeout_at(min(too_slow_at_s, rate_at_s, give_up_at_s)):
                    await body.wait()
            except TimeoutError:
                timed_out = True
            now_s = loop.time()
            self._note_wait(now_s - began_s)
            if timed_out and now_s >= too_slow_at_s:
                raise CallerTooSlow("The request's body did not arrive in time.")
            if timed_out and now_s >= give_up_at_s:
                return False
        return True

    def _note_wait(self, waited_s: float) -> None:
        """Checks the rate at the end of a period. Raises CallerTooSlow."""
        received = self._body.received_bytes
        self._pause_in_s -= waited_s
        if received - self._quick_from_bytes >= _RESUME_BYTES:
            self._pause_in_s, self._quick_from_bytes = _PAUSE_AFTER_S, received
        self._period_left_s -= waited_s
        min_rate = self._times.min_rate_bytes_s
        if self._period_left_s <= 0 and min_rate and not self._body.is_complete:
            if received - self._period_from_bytes < min_rate * RATE_PERIOD_S:
                raise CallerTooSlow(
                    f"The request's body arrived at under {min_rate} bytes per second for {RATE_PERIOD_S:.0f} s."
                )
            self._period_left_s, self._period_from_bytes = RATE_PERIOD_S, received
