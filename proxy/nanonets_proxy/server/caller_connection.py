"""One caller's connection: who is there, what of its requests needs no parser, what is said of those that are none.

a whole request, of a shape that was seen before -> queued as the parser would; as most requests come
anything else                                    -> to the parser (parser_feed.py), which says what comes again
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, web
from aiohttp.http_parser import RawRequestMessage

from nanonets_proxy.core.http.request_patterns import BEGINNING_BYTES, RequestPattern, RequestPatterns
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.server.flow_control import ReadAhead
from nanonets_proxy.server.parser_errors import refusal_for
from nanonets_proxy.server.parser_feed import MAX_TARGET_BYTES, ParserFeed
from nanonets_proxy.server.peers import Peer, peer_of
from nanonets_proxy.server.request_loop import Body, CallerRequest, RequestHandler, WholeBody

OnMalformed = Callable[[web.BaseRequest, Peer, ProxyError], web.StreamResponse]

_KNOWN_HEAD_BYTES: Final = 4096  # no head that needs no parser is longer
_FEED: Final = ParserFeed.data_received


class CallerConnection(ParserFeed):
    """One caller's connection; knows its peer from the start, and answers malformed requests in our shape."""

    __slots__ = ("_on_malformed", "_shapes", "_usual")

    def __init__(
        self,
        server: web.Server,
        handler: RequestHandler,
        ahead: ReadAhead,
        on_malformed: OnMalformed,
        shapes: RequestPatterns,
        *,
        head_timeout_s: float,
        **options: Any,
    ) -> None:
        super().__init__(server, handler, ahead, head_timeout_s, **options)
        self._on_malformed = on_malformed
        self._shapes = shapes
        self._usual = shapes.usual

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = peer_of(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """`data` may be a view of a buffer that others will use."""
        if self._is_at_line and not self._held and not self._body_left and not self._refused:
            head = bytes(data[:_KNOWN_HEAD_BYTES])
            shape = self._usual.get(head[:BEGINNING_BYTES])
            if shape is not None and self._queue_known(shape, head, data):
                return
        _FEED(self, data)

    def _queue_known(self, shape: RequestPattern, head: bytes, data: bytes) -> bool:
        """Queues a request that is whole and of this shape, as if the parser had read it; False: let that do so."""
        waiter = self._waiter
        if waiter is None or waiter.done():  # something is under way, or the connection ends
            return False
        found = shape.match(head)
        if found is None:
            return False
        groups, end = found.groups(), found.end()
        body_bytes = 0 if shape.length_at is None else int(groups[shape.length_at])
        if end + body_bytes != len(data):
            return False
        body: Body = WholeBody(bytes(data[end:])) if body_bytes else EMPTY_PAYLOAD
        request = CallerRequest(self, body, shape.method, groups[0].decode(), shape.names, groups, shape)
        self._request_count += 1
        self._messages.append((request, body))  # type: ignore[arg-type]  # only our own loop takes it out
        waiter.set_result(None)
        return True

    def on_head(self, message: RawRequestMessage) -> None:
        """What comes again gets a shape."""
        shape = self._shapes.find(message.method, tuple(name for name, _ in message.raw_headers))
        if shape is not None:
            self._usual = self._shapes.usual = {**self._usual, shape.beginning: shape}

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - our errors have their own
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may quote the request, so it is not passed on
    ) -> web.StreamResponse:
        """The parser's refusals; the handler itself lets no error out."""
        return self._on_malformed(request, self.peer, refusal_for(exc, max_target_bytes=MAX_TARGET_BYTES))
