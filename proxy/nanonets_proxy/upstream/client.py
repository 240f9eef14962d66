"""One exchange with the upstream: a request out, a head back, the body to be read.

What may be repeated, and when (RFC 9110 §9.2.2, RFC 9112 §9.3.1):

    the connection was reused, died before any byte of an answer, the method is idempotent and the
    body can be sent again                  -> once more, on a fresh connection, unseen
    anything else                           -> the error is the answer; a POST that may have been
                                               received is never sent twice
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from nanonets_proxy.core.http.methods import IDEMPOTENT_METHODS
from nanonets_proxy.core.http.retry import may_use_new_connection
from nanonets_proxy.errors import UpstreamClosed
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.pool import Pool
from nanonets_proxy.upstream.response_head import ResponseHead

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


StartedResponse = tuple[UpstreamConnection, ResponseHead]
"""An answer under way: its head is here, its body is read from the connection. The upload may still go on."""


class UpstreamClient:
    """Sends requests on pooled connections."""

    def __init__(self, pool: Pool, *, first_byte_timeout_s: float, on_retry: Callable[[], None]) -> None:
        """`on_retry` is called each time a request goes out once more unseen by its caller."""
        self._pool = pool
        self._first_byte_timeout_s = first_byte_timeout_s
        self._on_retry = on_retry
        self._loop = asyncio.get_running_loop()
        self._senders: dict[UpstreamConnection, asyncio.Task[None]] = {}

    async def send(self, request: UpstreamRequest) -> StartedResponse:
        """Sends `request` and returns once the final head has come; `release()` must follow.

        Raises an UpstreamError, or the error that reading the caller's body raised; nothing is left open then.
        """
        connection = self._pool.take_idle(self._loop.time(), request.method not in IDEMPOTENT_METHODS)
        is_reused = connection is not None
        while True:
            if connection is None:
                connection = await self._pool.dial()
            try:
                if request.body is None:
                    is_head, timeout_s = request.method == "HEAD", self._first_byte_timeout_s
                    head = await connection.send(request.head, timeout_s, is_head, request.on_interim)
                else:
                    head = await self._send_with_body(connection, request, request.body)
            except BaseException as error:
                self.release(connection)
                if not (is_reused and _may_replace_connection(connection, request, error)):
                    raise
            else:
                return connection, head
            self._on_retry()
            connection, is_reused = None, False

    def _send_with_body(
        self, connection: UpstreamConnection, request: UpstreamRequest, body: RequestBody
    ) -> Coroutine[Any, Any, ResponseHead]:
        """Sends the head, and starts a task that uploads the body. The result is the final head."""
        connection.start(is_head=request.method == "HEAD", on_interim=request.on_interim)
        first_piece = b"" if request.expect_continue else body.rewind()
        connection.write(request.head + _framed(first_piece, body))
        upload = self._upload(connection, body, request.expect_continue)
        self._senders[connection] = self._loop.create_task(upload)
        return connection.head()

    def release(self, connection: UpstreamConnection) -> None:
        """Ends an exchange: keeps its connection, or closes it where answer or upload did not come to their end."""
        if self._senders and (sender := self._senders.pop(connection, None)) is not None:
            sender.cancel()  # without effect on one that is done
        self._pool.give_back(connection)

    async def _upload(self, connection: UpstreamConnection, body: RequestBody, expect_continue: bool) -> None:
        """Streams the rest of a body; a failure of the caller's side is handed to whoever awaits the answer."""
        try:
            if expect_continue:
                if not await connection.wait_for_continue(_CONTINUE_WAIT_S):
                    return
                connection.write(_framed(body.rewind(), body))
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


def _may_replace_connection(connection: UpstreamConnection, request: UpstreamRequest, error: BaseException) -> bool:
    """Returns whether a request that failed on a reused connection is sent on a new one."""
    can_be_sent_again = request.body is None or request.body.is_replayable
    return isinstance(error, UpstreamClosed) and may_use_new_connection(
        request.method, response_began=connection.response_begun, can_be_sent_again=can_be_sent_again
    )


def _framed(piece: bytes, body: RequestBody) -> bytes:
    if body.length is not None or not piece:
        return piece
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _end_of(body: RequestBody) -> bytes:
    return b"" if body.length is not None else b"0\r\n\r\n"
