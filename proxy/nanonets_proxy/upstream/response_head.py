"""The head of an upstream response: status line and header section."""

import re
from collections.abc import Sequence
from typing import Final

from nanonets_proxy.core.http.header_plans import is_usual
from nanonets_proxy.core.http.headers import HOP_BY_HOP
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import ADVICE_FIELDS

# Building a pattern costs about as much as it then saves in 100 responses.
_USES_BEFORE_PATTERN: Final = 100
_MOST_BYTES: Final = 16 * 1024  # of a head that a pattern reads; HeadParser applies the limit for all heads
_STATUS_LINE: Final = rb"HTTP/1\.1 (?:200 OK|(?!204|304)(?P<code>[2-5][0-9][0-9]) (?P<reason>[ -~]*+))\r\n"
_VALUE: Final = rb"[!-~][ -~]*+(?<! )"
_VALUES: Final = {b"content-length": rb"(?P<length>[0-9]{1,18})", b"content-type": b"(?P<type>" + _VALUE + b")"}
_GROUPS: Final = ("code", "reason", "fields", "before", "after", "length", "type", "rest")
# Fields that frame the message, do not pass, or pass with another value.
_NOT_REPEATED: Final = HOP_BY_HOP - {b"connection"} | {b"location"}


class ResponseHead:
    """Status line and header section, as received.

    `values` has one value for each of `names`. Responses of one connection with the same field names share one
    tuple `names`. `body_length` is in bytes; None if chunked coding (then `is_chunked`) or the end of the
    connection delimits the body.
    """

    __slots__ = (
        *("body_length", "content_type", "has_advice", "is_chunked", "lines", "names", "reason", "status"),
        "values",
    )

    # The parser makes a head for each response and sets its attributes. A constructor would double the cost.
    status: int
    reason: bytes
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    body_length: int | None
    content_type: bytes | None
    """The first Content-Type."""
    is_chunked: bool
    has_advice: bool
    """Whether a field tells about a rate limit before it is reached."""
    lines: bytes | None
    """The lines of the fields that pass to the caller; None if they must be written from names and values."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header section as pairs of name and value."""
        return list(zip(self.names, self.values, strict=True))

    def with_fields(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> "ResponseHead":
        """Returns a copy with other fields. What the parser has read from the fields stays as it is."""
        changed = ResponseHead()
        for name in ResponseHead.__slots__:
            setattr(changed, name, getattr(self, name))
        changed.names, changed.values, changed.lines = names, values, None
        return changed


NO_HEAD: Final = ResponseHead()
"""Stands for the head until it has arrived."""
NO_HEAD.status, NO_HEAD.reason, NO_HEAD.names, NO_HEAD.values = 0, b"", (), ()
NO_HEAD.body_length, NO_HEAD.content_type, NO_HEAD.lines = None, None, None
NO_HEAD.is_chunked = NO_HEAD.has_advice = False


class RepeatedHead(ResponseHead):
    """A head that a `HeadShape` has read. Few responses need its values, so they are read only when asked for."""

    __slots__ = ("field_lines",)

    field_lines: bytes
    """The header section as received, without the empty line."""
    body_length: int
    is_chunked = False

    # Not by `__getattr__`, with which Python looks up each attribute slowly.
    @property
    def values(self) -> tuple[bytes, ...]:  # type: ignore[override]  # nothing sets the values of such a head
        return tuple(line.partition(b": ")[2] for line in self.field_lines.splitlines())


class HeadShape:
    """The facts about all heads with the same `names` of fields, and a reader of such heads.

    Consecutive responses of a connection mostly have the same names, so its parser keeps the shape of the last one.
    httptools rejects a second Content-Length.
    """

    __slots__ = (
        *("_groups", "_lower", "_pattern", "_uses"),
        *("content_length_at", "content_type_at", "has_advice", "names", "transfer_encodings_at"),
    )

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self._lower = lower = [name.lower() for name in names]
        self.names = names
        self.content_length_at = lower.index(b"content-length") if b"content-length" in lower else None
        self.content_type_at = lower.index(b"content-type") if b"content-type" in lower else None
        self.has_advice = not ADVICE_FIELDS.isdisjoint(lower)
        self.transfer_encodings_at = [at for at, name in enumerate(lower) if name == b"transfer-encoding"]
        self._uses = 0
        self._pattern: re.Pattern[bytes] | None = None
        self._groups: tuple[int, ...] = ()

    def note_use(self) -> None:
        """Counts a head that httptools has read, and builds the pattern for the following ones once that pays."""
        self._uses += 1
        if self._uses == _USES_BEFORE_PATTERN and (expression := _expression(self.names, self._lower)):
            self._pattern = re.compile(expression)
            self._groups = tuple(self._pattern.groupindex[name] for name in _GROUPS)

    def read(self, data: bytes | bytearray | memoryview) -> tuple[RepeatedHead, bytes] | None:
        """Returns the head that `data` starts with, and the bytes behind it; None if httptools must read it.

        `data` must start a response, and not one to a HEAD request. The head has a Content-Length, and the
        connection stays open behind the body.
        """
        if self._pattern is None or (found := self._pattern.match(data)) is None:
            return None
        head = RepeatedHead()
        code, reason, head.field_lines, before, after, length, head.content_type, rest = found.group(*self._groups)
        if len(data) - len(rest) > _MOST_BYTES:
            return None
        head.lines = before + after
        if code is None:
            head.status, head.reason = 200, b"OK"
        else:
            head.status, head.reason = int(code), reason
        head.names, head.body_length, head.has_advice = self.names, int(length), self.has_advice
        return head, rest


def _expression(names: tuple[bytes, ...], lower: list[bytes]) -> bytes:
    """Returns the expression for usual heads with these names; b"" if each head must be read by httptools.

    It accepts less than httptools: only the form `Name: value`, and only printable ASCII.
    """
    counts = [lower.count(name) for name in (b"content-length", b"content-type", b"connection")]
    if counts not in ([1, 1, 0], [1, 1, 1]) or not _NOT_REPEATED.isdisjoint(lower) or not is_usual(names):
        return b""
    lines = [_STATUS_LINE, b"(?P<fields>(?P<before>"]
    for name, own in zip(names, lower, strict=True):
        if own == b"connection":
            lines.append(b")%b: [Kk]eep-[Aa]live\r\n(?P<after>" % name)
        else:
            lines.append(re.escape(name) + b": " + _VALUES.get(own, _VALUE) + b"\r\n")
    if b"connection" not in lower:
        lines.append(b")(?P<after>")
    return b"".join([*lines, b"))\r\n(?P<rest>(?s:.*))"])


def size_of(names: Sequence[bytes], values: Sequence[bytes]) -> int:
    """Returns the bytes of a header section's names and values."""
    return sum(map(len, names)) + sum(map(len, values))
