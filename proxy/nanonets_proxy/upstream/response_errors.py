"""The errors that an unusable upstream response raises."""

import re
from typing import Final

from nanonets_proxy.upstream.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamUpgraded,
)

# RFC 9112 §4 allows a tab in a reason phrase, and no other control character. The parser allows all of them.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def status_line_error(protocol: bytes, version: str, status: int, reason: bytes) -> UpstreamError | None:
    """Checks a status line that the parser accepted; returns None if it is valid.

    `protocol` is the name before the slash, which for the parser may also be RTSP or ICE.
    """
    if protocol != b"HTTP" or version not in ("1.1", "1.0"):
        return bad_response("The upstream's response is not HTTP/1.1 or HTTP/1.0.")
    if status == 101:
        return UpstreamUpgraded("The upstream switched protocols, which no request asked for.", sent=True)
    if status < 100:
        return bad_response("The upstream's response has no valid status code.")
    if _CONTROL.search(reason):
        return bad_response("The upstream's reason phrase contains control characters.")
    return None


def too_large() -> UpstreamReplyTooLarge:
    return UpstreamReplyTooLarge("The upstream's header or trailer section is too large.", sent=True)


def bad_response(message: str) -> UpstreamBadReply:
    return UpstreamBadReply(message, sent=True)


def closed_early() -> UpstreamClosed:
    return UpstreamClosed("The upstream closed the connection before its response was complete.", sent=True)
