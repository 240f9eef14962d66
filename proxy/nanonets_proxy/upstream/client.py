"""One exchange with the upstream: a request out, a head back, the body to be read.

What may be repeated, and when (RFC 9110 §9.2.2, RFC 9112 §9.3.1):

    the connection was reused, died before any byte of an answer, the method is idempotent and the
    body can be sent again                  -> once more, on a fresh connection, unseen
    anything else                           -> the error is the answer; a POST that may have been
                                               received is never sent twice
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.errors import UpstreamClosed
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.pool import Pool
from nanonets_proxy.upstream.reply import ResponseHead

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# RFC 9110 §10.1.1: a client that expects 100-continue must not wait for it for ever. curl waits as long.
_CONTINUE_WAIT_S: Final = 1.0


@dataclass(slots=True)
class UpstreamRequest:
    """A request as it goes out. `head` ends in the empty line; `body` is None where there is none. `on_interim` is
    told of each 1xx that comes before the answer, but for 100."""

    method: str
    head: bytes
    body: RequestBody | None
    expect_continue: bool = False
    on_interim: Callable[[ResponseHead], None] | None = None


class Exchange:
    """An answer under way: its head is here, its body is read from `connection`. The upload may still go on."""

    __slots__ = ("connection", "head", "sender")

    def __init__(
        self, connection: UpstreamConnection, head: ResponseHead, sender: "asyncio.Task[None] | None"
    ) -> None:
        self.connection = connection
        self.head = head
        self.sender = sender


class UpstreamClient:
    """Sends requests on pooled connections."""

    def __init__(self, pool: Pool, *, first_byte_timeout_s: float, on_retry: Callable[[], None]) -> None:
        """`on_retry` is called each time a request goes out once more unseen by its caller."""
        self._pool = pool
        self._first_byte_timeout_s = first_byte_timeout_s
        self._on_retry = on_retry
        self._loop = asyncio.get_running_loop()

    async def begin(self, request: UpstreamRequest) -> Exchange:
        """Sends `request` and waits for the final head; `finish()` has to follow.

        Raises an UpstreamError, or what reading the caller's body raised; nothing is left open then.
        """
        body, on_interim = request.body, request.on_interim
        is_head = request.method == "HEAD"
        repeatable = request.method in IDEMPOTENT
        connection = self._pool.take_idle(self._loop.time(), careful=not repeatable)
        reused = connection is not None
        while True:
            if connection is None:
                connection = await self._pool.dial()
            sender = None
            try:
                if body is None:
                    head = await connection.send(request.head, self._first_byte_timeout_s, is_head, on_interim)
                else:
                    connection.start(is_head=is_head, on_interim=on_interim)
                    begun = b"" if request.expect_continue else body.begin()
                    connection.write(request.head + _framed(begun, body))
                    sender = self._loop.create_task(self._upload(connection, body, request.expect_continue))
                    head = await connection.head()
                return Exchange(connection, head, sender)
            except BaseException as error:
                connection.close()
                if sender is not None:
                    sender.cancel()
                lost = reused and isinstance(error, UpstreamClosed) and not connection.answered
                if not (lost and repeatable and (body is None or body.is_replayable)):
                    raise
            connection, reused = None, False
            self._on_retry()

    def finish(self, exchange: Exchange) -> None:
        """Gives the connection back, or closes it where answer or upload did not come to their end."""
        if exchange.sender is not None:
            exchange.sender.cancel()  # without effect on one that is done
        self._pool.give_back(exchange.connection)

    async def _upload(self, connection: UpstreamConnection, body: RequestBody, expect_continue: bool) -> None:
        """Streams the rest of a body; a failure of the caller's side is handed to whoever awaits the answer."""
        try:
            if expect_continue:
                if not await connection.wait_for_continue(_CONTINUE_WAIT_S):
                    return
                connection.write(_framed(body.begin(), body))
            await connection.drain()
            while piece := await body.read():
                if not connection.wants_body():
                    return
                connection.write(_framed(piece, body))
                await connection.drain()
            connection.write(_end_of(body))
            connection.finish_request(self._first_byte_timeout_s)
        except Exception as error:  # noqa: BLE001 - carried to the awaiting side, where it is mapped
            connection.fail(error)


def _framed(piece: bytes, body: RequestBody) -> bytes:
    if body.length is not None or not piece:
        return piece
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _end_of(body: RequestBody) -> bytes:
    return b"" if body.length is not None else b"0\r\n\r\n"
