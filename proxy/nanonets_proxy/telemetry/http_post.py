"""One POST on a connection of its own, to a receiver that is neither a caller nor the upstream."""

import asyncio
import re
import ssl
from typing import Final

_MAX_LINE_BYTES: Final = 8 * 1024
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")


async def post(host: str, port: int, tls: ssl.SSLContext | None, request: bytes) -> int:
    """Sends a request, and returns the status of its response. The rest of the response is not read.

    The caller sets a time limit.

    Raises:
        OSError: there is no connection, or it broke off.
        ValueError: the response is not HTTP.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_MAX_LINE_BYTES)
    try:
        writer.write(request)
        await writer.drain()
        found = _STATUS_LINE.match(await reader.readline())
    finally:
        writer.transport.abort()
    if found is None:
        raise ValueError("the receiver sent no HTTP response")
    return int(found[1])
