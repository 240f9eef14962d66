"""Reading a refusal of the upstream: a bounded piece of its body, and the hint in that of a 429."""

import contextlib
import time
import zlib
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.ratelimit.retry_hint import Hint, read_hint
from nanonets_proxy.errors import UpstreamError
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.response_head import ResponseHead

MAX_BODY_BYTES: Final = 64 * 1024
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS  # zlib's manual, inflateInit2: detect the header


@dataclass(frozen=True, slots=True)
class Throttle:
    """`begun` is what was read of the body, needed if the 429 has to be relayed after all."""

    begun: bytes
    hint: Hint


async def read_begun(connection: UpstreamConnection) -> bytes:
    """The body of a refusal, or its beginning: read to its end, the connection serves on. One that breaks off is
    a refusal all the same."""
    begun = connection.take()
    with contextlib.suppress(UpstreamError):
        while len(begun) < MAX_BODY_BYTES and not connection.is_whole and (piece := await connection.read()):
            begun += piece
    return begun


async def read_throttle(connection: UpstreamConnection, head: ResponseHead) -> Throttle:
    begun = await read_begun(connection)
    body = begun[:MAX_BODY_BYTES]
    if any(name.lower() == b"content-encoding" and value.lower() in _INFLATABLE for name, value in head.headers):
        body = _inflated(body)
    return Throttle(begun, read_hint(head.headers, body, wall_now_s=time.time()))


# Callers ask for compression on their own behalf, so that even a 429 may come compressed.
_INFLATABLE: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return b""
