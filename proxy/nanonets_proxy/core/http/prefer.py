"""Reads `Prefer`: how long a caller is willing to wait, and whether it wants to poll (RFC 7240 §4.1, §4.3)."""

import re
from collections.abc import Iterable

# RFC 7240 §2: preferences are a comma-separated list, each `name[=value]` with optional parameters behind `;`.
_WAIT = re.compile(rb'\s*wait\s*=\s*("?)([0-9]{1,9})\1\s*(?:;.*)?', re.IGNORECASE)
_RESPOND_ASYNC = re.compile(rb'\s*respond-async\s*(?:=\s*""\s*)?(?:;.*)?', re.IGNORECASE)


def wait_s(values: Iterable[bytes]) -> int | None:
    """Returns the seconds of the first well-formed `wait`, or None. Malformed ones are ignored (RFC 7240 §2)."""
    for value in values:
        for preference in value.split(b","):
            if match := _WAIT.fullmatch(preference):
                return int(match[2])
    return None


def prefers_async(values: Iterable[bytes]) -> bool:
    """Returns whether one of the preferences is `respond-async` (RFC 7240 §4.1)."""
    return any(_RESPOND_ASYNC.fullmatch(preference) for value in values for preference in value.split(b","))
