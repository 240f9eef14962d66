"""The head of an upstream response: status line and header section."""

from collections.abc import Sequence
from typing import Final

from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import ADVICE_FIELDS


class ResponseHead:
    """Status line and header section, as received.

    `values` has one value for each of `names`. Responses of one connection with the same field names share one
    tuple `names`. `body_length` is in bytes; None if chunked coding (then `is_chunked`) or the end of the
    connection delimits the body.
    """

    __slots__ = ("body_length", "content_type", "has_advice", "is_chunked", "names", "reason", "status", "values")

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

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header section as pairs of name and value."""
        return list(zip(self.names, self.values, strict=True))

    def with_fields(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> "ResponseHead":
        """Returns a copy with other fields. What the parser has read from the fields stays as it is."""
        changed = ResponseHead()
        for name in ResponseHead.__slots__:
            setattr(changed, name, getattr(self, name))
        changed.names, changed.values = names, values
        return changed


NO_HEAD: Final = ResponseHead()
"""Stands for the head until it has arrived."""
NO_HEAD.status, NO_HEAD.reason, NO_HEAD.names, NO_HEAD.values = 0, b"", (), ()
NO_HEAD.body_length, NO_HEAD.content_type, NO_HEAD.is_chunked, NO_HEAD.has_advice = None, None, False, False


class FramingFields:
    """The positions of the fields that describe a body, for header sections with these `names`.

    The parser rejects a second Content-Length. Consecutive responses of a connection mostly have the same names,
    so the parser keeps the positions.
    """

    __slots__ = ("content_length_at", "content_type_at", "has_advice", "names", "transfer_encodings_at")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        lower = [name.lower() for name in names]
        self.names = names
        self.content_length_at = lower.index(b"content-length") if b"content-length" in lower else None
        self.content_type_at = lower.index(b"content-type") if b"content-type" in lower else None
        self.has_advice = not ADVICE_FIELDS.isdisjoint(lower)
        self.transfer_encodings_at = [at for at, name in enumerate(lower) if name == b"transfer-encoding"]


def size_of(names: Sequence[bytes], values: Sequence[bytes]) -> int:
    """Returns the bytes of a header section's names and values."""
    return sum(map(len, names)) + sum(map(len, values))
