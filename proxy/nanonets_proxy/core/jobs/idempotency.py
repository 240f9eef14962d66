"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07), and the fingerprints of payloads."""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from nanonets_proxy.errors import BadRequest

# Draft 07 §2.1: a String of structured fields (RFC 8941 §3.3.3). Many clients send the bare text.
_QUOTED: Final = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE: Final = re.compile(rb"[!#$%&'*+./0-9:=A-Z^_`a-z|~-]{1,255}")
_ESCAPED: Final = re.compile(rb'\\(["\\])')
_BOUNDARY: Final = re.compile(rb'[;\s]boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)


def idempotency_key(values: Sequence[bytes]) -> str | None:
    """Returns the key of a request, from the values of its Idempotency-Key fields; None without one.

    Raises BadRequest if the key is malformed or repeated.
    """
    if not values:
        return None
    value = values[0].strip()
    quoted = _QUOTED.fullmatch(value)
    if len(values) > 1 or not (quoted or _BARE.fullmatch(value)):
        raise BadRequest(
            "Idempotency-Key must be one string of 1 to 255 printable ASCII characters, "
            "in quotes if it has spaces or separators such as commas."
        )
    return (_ESCAPED.sub(rb"\1", quoted[1]) if quoted else value).decode()


class Fingerprint:
    """The fingerprint of a request's method, target and body, whose pieces are added as they arrive.

    A multipart body counts without its boundary: clients choose another one at random for each retry.
    """

    __slots__ = ("_boundary", "_digest", "_tail")

    def __init__(self, method: str, target: bytes, content_types: Iterable[bytes]) -> None:
        self._digest = sha256(b"%b %b\n" % (method.encode(), target))
        match = next(filter(None, map(_BOUNDARY.search, content_types)), None)
        self._boundary = b"" if match is None else match[1] or match[2]
        self._tail = b""  # may be the beginning of a boundary

    def add(self, piece: bytes) -> None:
        """Adds the next bytes of the body."""
        boundary = self._boundary
        if not boundary:
            self._digest.update(piece)
            return
        *parts, last = (self._tail + piece).split(boundary)
        for part in parts:
            self._digest.update(part)
        kept = min(len(last), len(boundary) - 1)
        self._digest.update(last[: len(last) - kept])
        self._tail = last[len(last) - kept :]

    def digest(self) -> bytes:
        """Returns the fingerprint of what was added, 32 bytes."""
        whole = self._digest.copy()
        whole.update(self._tail)
        return whole.digest()
