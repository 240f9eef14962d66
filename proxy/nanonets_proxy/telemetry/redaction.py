"""Masks API keys, callers' tokens and other secrets in log lines, in any field or traceback."""

import json
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

from nanonets_proxy.core.access.caller_tokens import mask_tokens

_MASK = b"[REDACTED]"
# Of each source. The search for a key's spellings takes time for each batch of lines, so a command that prints a
# new token each minute must not add to them for ever. Lines wait for seconds, requests with an old key for minutes.
MOST_KEYS: Final = 32


class Redactor:
    """Masks secrets in each spelling that a log line may contain: lasting ones, and the last keys of each source.

    The program knows only the hashes of callers' tokens, so it masks all text of their form.
    """

    def __init__(self) -> None:
        self._lasting: set[bytes] = set()
        self._sources: list[dict[tuple[bytes, ...], None]] = []
        self._spellings: tuple[bytes, ...] = ()

    def add(self, secrets: Iterable[bytes]) -> None:
        """Adds secrets that are masked for ever."""
        self._lasting.update(secrets)
        self._spell()

    def for_source(self) -> Callable[[Iterable[bytes]], None]:
        """Returns a function that adds all forms of one key of a source.

        The last `MOST_KEYS` keys are masked. A key that is in use must be added again with each new one.
        """
        keys: dict[tuple[bytes, ...], None] = {}
        self._sources.append(keys)

        def add(forms: Iterable[bytes]) -> None:
            key = tuple(forms)
            is_new = key not in keys
            keys.pop(key, None)
            keys[key] = None
            if is_new:
                if len(keys) > MOST_KEYS:
                    del keys[next(iter(keys))]
                self._spell()

        return add

    def _spell(self) -> None:
        spellings: set[bytes] = set()
        for secret in self._lasting.union(*(form for keys in self._sources for form in keys)):
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
