"""Whether the text of a 429 says that a quota is used up for long: for the day, the month, or until payment."""

import re
from typing import Final

_MAX_BYTES: Final = 4096
"""Error texts are short; a longer page may name a day for any reason."""

_LONG: Final = re.compile(
    rb"(?<![a-z])(?:(?:dai|month|year)ly|(?:per|a|this|next|the)[ _-](?:calendar[ _-])?(?:day|month|year)"
    rb"|today|tomorrow|credits?|billing[ _-](?:period|cycle))(?![a-z])",
    re.IGNORECASE,
)


def names_long_quota(body: bytes) -> bool:
    """Returns whether the body of a 429 names a day, a month, tomorrow or credits."""
    return len(body) <= _MAX_BYTES and _LONG.search(body) is not None
