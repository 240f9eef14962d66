"""How urgent a request is: `Priority: u=0` to `u=7` (RFC 9218 §4.1)."""

import re
from collections.abc import Iterable

from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY

# RFC 9218 §4: a dictionary of structured fields; of its members only `u` is of interest here.
_URGENCY = re.compile(rb"\s*u=([0-7])\s*(?:;.*)?")


def urgency(values: Iterable[bytes]) -> int:
    """The last well-formed `u` of all lines (RFC 8941 §3.2); 3 without one. Nonsense is ignored (RFC 9218 §4)."""
    found = DEFAULT_URGENCY
    for value in values:
        for member in value.split(b","):
            if match := _URGENCY.fullmatch(member):
                found = int(match[1])
    return found
