"""Masks API keys, callers' tokens and other secrets in log lines, in any field or traceback."""

import json
from collections.abc import Iterable
from urllib.parse import quote

from nanonets_proxy.core.access.caller_tokens import mask_tokens

_MASK = b"[REDACTED]"


class Redactor:
    """Masks every secret used since the start, in each spelling that a log line may contain.

    The program knows only the hashes of callers' tokens, so it masks all text of their form.
    """

    def __init__(self) -> None:
        self._spellings: tuple[bytes, ...] = ()

    def add(self, secrets: Iterable[bytes]) -> None:
        spellings = set(self._spellings)
        for secret in secrets:
            # An egress proxy's password may be any bytes.
            text = secret.decode("utf-8", "surrogateescape")
            spellings |= {secret, json.dumps(text)[1:-1].encode(), quote(secret, safe="").encode()}
        # Longest first: one spelling of a key may be the start of another.
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))

    def mask(self, data: bytes) -> bytes:
        """Returns the data with asterisks for each secret. The length stays, for formats that state it.

        Log lines get one fixed mark instead (`__call__`).
        """
        for spelling in self._spellings:
            if spelling in data:
                data = data.replace(spelling, b"*" * len(spelling))
        return mask_tokens(data, lambda found: b"*" * len(found[0]))

    def __call__(self, data: bytes) -> bytes:
        for spelling in self._spellings:
            if spelling in data:
                data = data.replace(spelling, _MASK)
        return mask_tokens(data, _MASK)
