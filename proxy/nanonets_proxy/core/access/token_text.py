"""The text of a caller's token."""

import re
from base64 import urlsafe_b64encode
from typing import Final

TOKEN_BYTES: Final = 32
# Secret scanners recognise a token by this prefix.
PREFIX: Final = "nnp_"
_TOKEN: Final = rb"%b[A-Za-z0-9_-]{43}" % PREFIX.encode()


def make_token(randomness: bytes) -> str:
    """Returns a new token from TOKEN_BYTES random bytes. Raises ValueError if there are more or fewer."""
    if len(randomness) != TOKEN_BYTES:
        raise ValueError(f"a token needs {TOKEN_BYTES} random bytes")
    return PREFIX + urlsafe_b64encode(randomness).rstrip(b"=").decode()


def is_caller_token(text: bytes) -> bool:
    """Returns whether `make_token` made this text."""
    return re.fullmatch(_TOKEN, text) is not None
