"""Reads how urgent a request is: `Priority: u=0` to `u=7` (RFC 9218 §4.1)."""

import re
from collections.abc import Iterable
from itertools import chain, islice

from nanonets_proxy.core.http.grammar import MOST_LIST_ITEMS
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY

# RFC 9218 §4: a dictionary of structured fields. The proxy uses its member `u` only.
_URGENCY = re.compile(rb"\s*u=([0-7])\s*(?:;.*)?")


def urgency(values: Iterable[bytes]) -> int:
    """Returns the last well-formed `u` of all field lines (RFC 8941 §3.2), or the default, 3.

    Malformed members are ignored (RFC 9218 §4), and so are those beyond the first `MOST_LIST_ITEMS`.
    """
    found = DEFAULT_URGENCY
    members = chain.from_iterable(value.split(b",", MOST_LIST_ITEMS) for value in values)
    for member in islice(members, MOST_LIST_ITEMS):
        if match := _URGENCY.fullmatch(member):
            found = int(match[1])
    return found
