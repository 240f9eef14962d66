"""The grammar that names of methods, header fields and other tokens share (RFC 9110 §5.6.2)."""

import re
from typing import Final

TOKEN_PATTERN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
TOKEN: Final = re.compile(TOKEN_PATTERN)
MOST_LIST_ITEMS: Final = 64
"""How many items of a list-valued field count, where a longer list is of no use: 48 KB of commas take 20 ms."""


def is_token(text: str) -> bool:
    """Returns whether `text` is one token."""
    return text.isascii() and TOKEN.fullmatch(text.encode()) is not None
