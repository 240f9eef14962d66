"""Reads the start of a response's body before the response is judged, and the hint of a 429 in it."""

import contextlib
import time
import zlib
from typing import Final

from nanonets_proxy.core.http.headers import values_of
from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint, read_hint
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.errors import UpstreamError
from nanonets_proxy.upstream.response_head import ResponseHead

MAX_BODY_BYTES: Final = 64 * 1024
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS  # zlib's manual, inflateInit2: detect the header
# Callers ask for compression on their own behalf, so even a 429 may be compressed.
_INFLATABLE: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


async def read_body_start(connection: UpstreamConnection) -> bytes:
    """Returns the body of a response, or about its first `MAX_BODY_BYTES`.

    A connection whose response was read to its end can serve another request. A body that breaks off is returned
    as far as it came.
    """
    start = connection.read_nowait()
    with contextlib.suppress(UpstreamError):
        while len(start) < MAX_BODY_BYTES and not connection.is_complete and (piece := await connection.read()):
            start += piece
    return start


def hint_of(head: ResponseHead, body_start: bytes = b"") -> Hint:
    """Returns the hint of a response: how long to wait."""
    body = body_start[:MAX_BODY_BYTES]
    if not _codings(head).isdisjoint(_INFLATABLE):
        body = _inflate(body)
    return read_hint(head.headers, body, wall_now_s=time.time())


def decoded_body(head: ResponseHead, body: bytes) -> bytes | None:
    """Returns a whole body without its content coding; None if the coding is unknown."""
    codings = _codings(head)
    if not codings - {b"identity"}:
        return body
    return _inflate(body) if len(codings) == 1 and codings <= _INFLATABLE else None


def _codings(head: ResponseHead) -> set[bytes]:
    return {value.lower() for value in values_of(b"content-encoding", head.names, head.values)}


def _inflate(body: bytes) -> bytes:
    """Returns the inflated beginning of `body`; b"" if `body` is not compressed after all."""
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return b""
