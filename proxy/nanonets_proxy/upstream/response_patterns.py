"""Reads whole responses of a known pattern by one expression (see core/http/head_patterns.py)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.head_patterns import PatternTable, are_readable, line
from nanonets_proxy.upstream.response_head import ResponseHead

_MAX_REASON_BYTES: Final = 64

_Key = tuple[int, bytes, tuple[bytes, ...]]  # status, reason, names


@dataclass(frozen=True, slots=True)
class ResponsePattern:
    """Answers of one status line and of fields of the same `names`, one of which is Content-Length, at `length_at`.
    They leave the connection open."""

    status: int
    reason: bytes
    names: tuple[bytes, ...]
    length_at: int
    match: Callable[[memoryview, int, int], re.Match[bytes] | None]
    """Of the expression for the head, to the end of its empty line; its groups are the values of all fields."""


class ResponsePatterns:
    """Those of one upstream's answers. An answer is looked for among the last two shapes that came."""

    def __init__(self) -> None:
        self._table = PatternTable(_may_have_shape, _make)
        self._latest: tuple[ResponsePattern, ...] = ()  # the very last first

    def read(self, buffer: memoryview, length: int) -> ResponseHead | None:
        """The head of the answer that the first `length` octets of `buffer` are, from its first to its last, the
        body being the last `body_length` of them; None where it is the parser's to judge what they are."""
        latest = self._latest
        for shape in latest:
            if (found := shape.match(buffer, 0, length)) is not None:
                break
        else:
            return None
        values = found.groups()
        body_length = int(values[shape.length_at])
        if found.end() + body_length != length:
            return None
        if shape is not latest[0]:
            self._put_first(shape)
        head = ResponseHead()
        head.status = shape.status
        head.reason = shape.reason
        head.names = shape.names
        head.values = values
        head.body_length = body_length
        head.is_chunked = False
        return head

    def learn(self, head: ResponseHead) -> bool:
        """Of a whole answer with a body, which the parser took and which leaves the connection open; whether its
        like is known now."""
        shape = self._table.find((head.status, head.reason, head.names))
        if shape is None:
            return False
        self._put_first(shape)
        return True

    def _put_first(self, shape: ResponsePattern) -> None:
        latest = self._latest
        if not latest or latest[0] is not shape:
            self._latest = (shape, *latest[:1])


def _may_have_shape(key: _Key) -> bool:
    _, reason, names = key
    lower = [name.lower() for name in names]
    return (
        b"content-length" in lower
        and are_readable(lower)
        and len(reason) <= _MAX_REASON_BYTES
        and reason.strip() != b""
    )


def _make(key: _Key) -> ResponsePattern:
    status, reason, names = key
    lines = [line(name, captured=True) for name in names]
    expression = re.compile(b"HTTP/1\\.1 %d %b\r\n%b\r\n" % (status, re.escape(reason), b"".join(lines)))
    length_at = [name.lower() for name in names].index(b"content-length")
    return ResponsePattern(status, reason, names, length_at, expression.match)
