"""Which responses may be kept to be revalidated by ETag, and what a 304 changes in them (RFC 9111).

The upstream sees one client, the holder of the key, and confirms each use of a response with that key. So the rule
of RFC 9111 §3.5 about requests with Authorization does not apply, but `private` is respected all the same.
"""

import re
from collections.abc import Iterable
from typing import Final

from nanonets_proxy.core.http.headers import HOP_BY_HOP, connection_options
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import ADVICE_FIELDS

Names = tuple[bytes, ...]
Values = tuple[bytes, ...]

# RFC 9110 §8.8.3
_ENTITY_TAG: Final = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_CONDITIONAL: Final = frozenset(
    {b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range"}
)
# They belong to one response: the time, the place in a rate limit, the request's id, the age in a cache.
_OF_ONE_RESPONSE: Final = (
    HOP_BY_HOP
    | ADVICE_FIELDS
    | {b"age", b"cache-status", b"date", b"proxy-status", b"retry-after", b"server-timing", b"via", b"x-request-id"}
)
# RFC 9111 §3.2: a 304 describes its own content, which is empty, with Content-Length.
_OF_THE_CONTENT: Final = frozenset({b"content-encoding", b"content-length", b"content-range", b"content-type"})


def may_be_revalidated(names: Names, values: Values) -> bool:
    """Returns whether the proxy may add a condition to a GET: it has none of its own, and forbids no storing."""
    for name, value in zip(names, values, strict=True):
        lower = name.lower()
        if lower in _CONDITIONAL or (lower == b"cache-control" and b"no-store" in _directives(value)):
            return False
    return True


def kept_tag(names: Names, values: Values, ignored: frozenset[bytes]) -> bytes | None:
    """Returns the ETag of a 200 that may be kept; None if it may not.

    `ignored`: request fields, in lower case, that identical requests may differ in.
    """
    tags = []
    for name, value in zip(names, values, strict=True):
        match name.lower():
            case b"etag":
                tags.append(value)
            case b"cache-control" if not {b"no-store", b"private"}.isdisjoint(_directives(value)):
                return None
            case b"vary" if not (ignored | {b"*"}).isdisjoint(_directives(value)):
                return None
            case b"set-cookie":
                return None  # a cookie is for one time, and for one client
    return tags[0] if len(tags) == 1 and _ENTITY_TAG.fullmatch(tags[0]) else None


def fields_to_keep(names: Names, values: Values) -> tuple[Names, Values]:
    """Returns the fields of a response without those that belong to this one time."""
    dropped = _OF_ONE_RESPONSE | _nominated(names, values)
    return _selected((n, v) for n, v in zip(names, values, strict=True) if n.lower() not in dropped)


def updated_fields(kept: tuple[Names, Values], names: Names, values: Values) -> tuple[Names, Values]:
    """Returns the fields of a kept response after a 304 with these fields (RFC 9111 §3.2, §4.3.4).

    A field of the 304 replaces all of its name. An ETag that is not the kept one, such as that of another
    compression, does not.
    """
    tags = [v for n, v in zip(*kept, strict=True) if n.lower() == b"etag"]
    fixed = HOP_BY_HOP | _OF_THE_CONTENT | _nominated(names, values)
    new = [
        (n, v)
        for n, v in zip(names, values, strict=True)
        if n.lower() not in fixed and (n.lower() != b"etag" or _opaque(v) in map(_opaque, tags))
    ]
    replaced = {n.lower() for n, _ in new}
    return _selected([*((n, v) for n, v in zip(*kept, strict=True) if n.lower() not in replaced), *new])


def _opaque(tag: bytes) -> bytes:
    """Returns a tag for the weak comparison (RFC 9110 §8.8.3.2)."""
    return tag.removeprefix(b"W/")


def _directives(value: bytes) -> set[bytes]:
    """Returns the names in a list such as that of Cache-Control, in lower case.

    A comma in a quoted value splits it. That can only add names, and an added name forbids more.
    """
    return {item.partition(b"=")[0].strip().lower() for item in value.split(b",")}


def _nominated(names: Names, values: Values) -> frozenset[bytes]:
    fields = zip(names, values, strict=True)
    return frozenset().union(*(connection_options(v) for n, v in fields if n.lower() == b"connection"))


def _selected(fields: Iterable[tuple[bytes, bytes]]) -> tuple[Names, Values]:
    pairs = list(fields)
    return tuple(n for n, _ in pairs), tuple(v for _, v in pairs)
