"""Sends requests to the upstream on pooled connections.

If a reused connection dies before any byte of a response, the client sends an idempotent request once more, on a
new connection (RFC 9112 §9.3.1). Any other failure is raised: the client never sends a POST twice that the upstream
may have received.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from nanonets_proxy.core.http.methods import IDEMPOTENT_METHODS
from nanonets_proxy.core.http.retry import may_use_new_connection
from nanonets_proxy.core.status.upstream_watch import Finding
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.errors import UpstreamClosed
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.pool import Pool
from nanonets_proxy.upstream.response_head import ResponseHead

# RFC 9110 §10.1.1: a client must not wait forever for 100 (Continue). curl waits as long as this.
_CONTINUE_WAIT_S: Final = 1.0
# A socket takes these bytes at once, so no response to the request can precede an error from writing it.
_ONE_WRITE_BYTES: Final = 16 * 1024


StartedResponse = tuple[UpstreamConnection, ResponseHead]
"""A response whose head has arrived; its body is read from the connection. The upload may still be running."""


class UpstreamClient:
    """See the module's docstring."""

    def __init__(self, pool: Pool, *, first_byte_timeout_s: float, on_retry: Callable[[], None]) -> None:
        """`on_retry` is called each time the client sends a request again."""
        self.pool = pool
        self._first_byte_timeout_s = first_byte_timeout_s
        self._on_retry = on_retry
        self._loop = asyncio.get_running_loop()
        self._uploads: dict[UpstreamConnection, asyncio.Task[None]] = {}

    def change_timeout(self, first_byte_timeout_s: float) -> None:
        """Sets another time limit, for the requests that are sent from now on."""
        self._first_byte_timeout_s = first_byte_timeout_s

    def judge_upstream(self, now_s: float) -> Finding | None:
        """Returns what is wrong with the upstream, as far as its connections show."""
        return self.pool.judge_upstream(now_s, self._first_byte_timeout_s)

    async def send(self, request: UpstreamRequest) -> StartedResponse:
        """Sends `request` and returns when the final head has arrived; `release()` must follow.

        Raises an UpstreamError, or the error from reading the caller's body; the connection is released then.
        """
        is_upload = request.body is not None or len(request.head) > _ONE_WRITE_BYTES
        check_socket = is_upload or request.method not in IDEMPOTENT_METHODS
        connection = self.pool.take_idle(self._loop.time(), check_socket, request.caller)
        is_reused = connection is not None
        while True:
            if connection is None:
                connection = await self.pool.dial()
            connection.is_upload = is_upload
            if request.on_send is not None:
                request.on_send()
            try:
                if request.body is None:
                    head = await connection.send(request, self._first_byte_timeout_s)
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
        """Sends the head and starts the upload of the body; the result is the final head."""
        connection.start(request)
        # If bytes have come, an earlier attempt read them: the caller waits for no 100 (Continue) any more.
        awaits_continue = request.expect_continue and not body.received_bytes
        first_piece = b"" if awaits_continue else body.rewind()
        connection.write(request.head + _framed(first_piece, body))
        upload = self._upload(connection, body, awaits_continue)
        self._uploads[connection] = self._loop.create_task(upload)
        return connection.head()

    def release(self, connection: UpstreamConnection) -> None:
        """Ends an exchange. Keeps its connection if response and upload are complete, closes it otherwise."""
        if self._uploads and (upload := self._uploads.pop(connection, None)) is not None:
            upload.cancel()
        self.pool.give_back(connection)

    async def _upload(self, connection: UpstreamConnection, body: RequestBody, awaits_continue: bool) -> None:
        """Streams the body. If reading it fails, the wait for the response raises the error."""
        try:
            if awaits_continue:
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
        except Exception as error:  # noqa: BLE001 - the connection raises it to the task that awaits the response
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
