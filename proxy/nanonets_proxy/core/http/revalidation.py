"""Which responses may be kept to be revalidated by ETag, and what a 304 changes in them (RFC 9111).

The upstream sees one client, the holder of the key, and confirms each use of a response with that key. So the rule
of RFC 9111 §3.5 about requests with Authorization does not apply, but `private` is respected all the same.
"""

import re
from collections.abc import Sequence
from typing import Final

from nanonets_proxy.core.http.headers import HOP_BY_HOP, nominated_fields, values_of, without_fields
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import ADVICE_FIELDS

Names = tuple[bytes, ...]
Values = tuple[bytes, ...]

_WEAK: Final = b"W/"

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
    return without_fields(_OF_ONE_RESPONSE | nominated_fields(names, values), names, values)


def updated_fields(kept: tuple[Names, Values], names: Names, values: Values) -> tuple[Names, Values]:
    """Returns the fields of a kept response after a 304 with these fields (RFC 9111 §3.2, §4.3.4).

    A field of the 304 replaces all of its name. If the ETag of the 304 identifies another response, only the fields
    that belong to this one time are taken, such as Date.
    """
    fixed = HOP_BY_HOP | _OF_THE_CONTENT | nominated_fields(names, values)
    if not _identifies(values_of(b"etag", names, values), *values_of(b"etag", *kept)):
        fixed |= {lower for name in names if (lower := name.lower()) not in _OF_ONE_RESPONSE}
    names, values = without_fields(fixed, names, values)
    kept_names, kept_values = without_fields(frozenset(name.lower() for name in names), *kept)
    return (*kept_names, *names), (*kept_values, *values)


def _identifies(tags: Sequence[bytes], kept_tag: bytes) -> bool:
    """Returns whether a 304 with these tags may update the kept response (RFC 9111 §4.3.4).

    A strong tag identifies the response with the same one. Without a strong tag, the weak comparison decides (RFC
    9110 §8.8.3.2). Without any tag, it is the one that the condition named.
    """
    if strong := [tag for tag in tags if not tag.startswith(_WEAK)]:
        return kept_tag in strong
    return not tags or kept_tag.removeprefix(_WEAK) in [tag.removeprefix(_WEAK) for tag in tags]


def _directives(value: bytes) -> set[bytes]:
    """Returns the names in a list such as that of Cache-Control, in lower case.

    A comma in a quoted value splits it. That can only add names, and an added name forbids more.
    """
    return {item.partition(b"=")[0].strip().lower() for item in set(value.split(b","))}
