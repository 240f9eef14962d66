"""Blanks the API keys wherever they would show: in log lines, whatever field or traceback they stand in."""

import json
from collections.abc import Iterable
from urllib.parse import quote

_MASK = b"[REDACTED]"


class Redactor:
    """Knows every key that was in use since the start, in each spelling that a log line may have of it."""

    def __init__(self) -> None:
        self._spellings: tuple[bytes, ...] = ()

    def add(self, secrets: Iterable[bytes]) -> None:
        spellings = set(self._spellings)
        for secret in secrets:
            # An egress proxy's password may be any bytes.
            text = secret.decode("utf-8", "surrogateescape")
            spellings |= {secret, json.dumps(text)[1:-1].encode(), quote(secret, safe="").encode()}
        # The longest first: a key may be the beginning of its own other spelling.
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))

    def __call__(self, data: bytes) -> bytes:
        for spelling in self._spellings:
            if spelling in data:
                data = data.replace(spelling, _MASK)
        return data
