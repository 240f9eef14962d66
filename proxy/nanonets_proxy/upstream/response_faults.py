"""What an answer is refused for, as the errors that callers are told."""

import re
from typing import Final

from nanonets_proxy.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamUpgraded,
)

# RFC 9112 §4: only a tab is allowed of them; the parser takes them all.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def status_line_fault(version: str, status: int, reason: bytes) -> UpstreamError | None:
    """Of what the parser took; None where there is none."""
    if version not in ("1.1", "1.0"):
        return bad_reply("The upstream answered in another version of HTTP.")
    if status == 101:
        return UpstreamUpgraded("The upstream switched protocols unasked.", sent=True)
    if status < 100:
        return bad_reply("The upstream's answer has no valid status.")
    if _CONTROL.search(reason):
        return bad_reply("The upstream's reason phrase has control characters in it.")
    return None


def too_large() -> UpstreamReplyTooLarge:
    return UpstreamReplyTooLarge("The upstream's header or trailer section is too large.", sent=True)


def bad_reply(message: str) -> UpstreamBadReply:
    return UpstreamBadReply(message, sent=True)


def closed_early() -> UpstreamClosed:
    return UpstreamClosed("The upstream closed the connection before its answer was complete.", sent=True)
