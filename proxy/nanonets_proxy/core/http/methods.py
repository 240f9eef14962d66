"""Request methods by what repeating them may do (RFC 9110 §9.2)."""

from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing upstream (§9.2.1). TRACE is safe too, but the proxy rejects it."""

IDEMPOTENT_METHODS: Final = SAFE_METHODS | {"PUT", "DELETE"}
"""Methods that have the same effect once or twice (§9.2.2)."""
