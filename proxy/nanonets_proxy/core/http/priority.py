"""Reads how urgent a request is: `Priority: u=0` to `u=7` (RFC 9218 §4.1)."""

import re
from collections.abc import Iterable

from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY

# RFC 9218 §4: a dictionary of structured fields. The proxy uses its member `u` only.
_URGENCY = re.compile(rb"\s*u=([0-7])\s*(?:;.*)?")


def urgency(values: Iterable[bytes]) -> int:
    """Returns the last well-formed `u` of all field lines (RFC 8941 §3.2), or the default, 3.

    Malformed members are ignored (RFC 9218 §4).
    """
    found = DEFAULT_URGENCY
    for value in values:
        for member in value.split(b","):
            if match := _URGENCY.fullmatch(member):
                found = int(match[1])
    return found
