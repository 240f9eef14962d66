"""Request methods: what repeating them may do (RFC 9110 §9.2), and which ones are rejected."""

from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing upstream (§9.2.1). TRACE is safe too, but the proxy rejects it."""

IDEMPOTENT_METHODS: Final = SAFE_METHODS | {"PUT", "DELETE"}
"""Methods that have the same effect once or twice (§9.2.2)."""

USUAL_METHODS: Final = IDEMPOTENT_METHODS | {"POST", "PATCH"}
"""Methods that pass without another look."""

REJECTED_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
"""Methods that are never forwarded. Some servers treat TRACK as TRACE, whose response would contain the key."""

_OTHER_METHODS: Final = frozenset(
    [
        "COPY",
        "LINK",
        "LOCK",
        "MKCOL",
        "MOVE",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "QUERY",
        "SEARCH",
        "UNLINK",
        "UNLOCK",
    ]
)
_KNOWN_METHODS: Final = USUAL_METHODS | REJECTED_METHODS | _OTHER_METHODS


def is_misspelled(method: str) -> bool:
    """Returns whether `method` is a known method in another case.

    Methods are case-sensitive (RFC 9110 §9.1), but some servers ignore case. No rule for the method would apply.
    """
    upper = method.upper()
    return method != upper and upper in _KNOWN_METHODS
