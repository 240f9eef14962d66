"""Reads `Prefer`: how long a caller is willing to wait, and whether it wants to poll (RFC 7240 §4.1, §4.3)."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from nanonets_proxy.core.http.grammar import MOST_LIST_ITEMS

# RFC 7240 §2: preferences are a comma-separated list, each `name[=value]` with optional parameters behind `;`.
# A comma in quotes separates nothing. Escapes are not looked at: a long value must be read in linear time.
_PREFERENCE = re.compile(rb'(?:[^",]++|"[^"]*"|")+')
_WAIT = re.compile(rb'\s*wait\s*=\s*("?)([0-9]{1,9})\1\s*(?:;.*)?', re.IGNORECASE)
_RESPOND_ASYNC = re.compile(rb'\s*respond-async\s*(?:=\s*""\s*)?(?:;.*)?', re.IGNORECASE)


def wait_s(values: Iterable[bytes]) -> int | None:
    """Returns the seconds of the first well-formed `wait`, or None. Malformed ones are ignored (RFC 7240 §2)."""
    for preference in _preferences(values):
        if match := _WAIT.fullmatch(preference):
            return int(match[2])
    return None


def prefers_async(values: Iterable[bytes]) -> bool:
    """Returns whether one of the preferences is `respond-async` (RFC 7240 §4.1)."""
    return any(map(_RESPOND_ASYNC.fullmatch, _preferences(values)))


def _preferences(values: Iterable[bytes]) -> Iterator[bytes]:
    pieces = (
        (found[0] for found in _PREFERENCE.finditer(value)) if b'"' in value else value.split(b",", MOST_LIST_ITEMS)
        for value in values
    )
    return islice(chain.from_iterable(pieces), MOST_LIST_ITEMS)
