"""Blanks what an answer says of the key that its request was sent with.

Each form of the key becomes as many asterisks, so that lengths hold. A part of a form at the end of a piece is
held back until the next piece tells whether it is one.
"""

import re
from collections.abc import Sequence
from typing import Final

MAX_BODY_BYTES: Final = 64 * 1024
"""So much of an error's body is looked at."""

ERROR_FROM_STATUS: Final = 400
"""Below it a body is a document, which holds no key."""

# A real key has 36 characters and more; a form as short as a word would blank innocent text.
_SHORTEST_FORM: Final = 8
_SIGN_BYTES: Final = 16


class KeyForms:
    """What to look for: the key, plain or in Base64, longest form first."""

    __slots__ = ("_pattern", "_signs", "forms")

    def __init__(self, forms: Sequence[bytes]) -> None:
        self.forms = tuple(form for form in forms if len(form) >= _SHORTEST_FORM)
        self._pattern = re.compile(b"|".join(map(re.escape, self.forms)) or rb"(?!)")
        # The forms in Base64 begin alike; every answer is searched, so each search counts.
        self._signs = tuple({form[:_SIGN_BYTES] for form in self.forms})

    def blank(self, data: bytes) -> bytes:
        """`data` itself where nothing is in it."""
        for sign in self._signs:
            if data.partition(sign)[1]:  # `in` history it as an octet first, `find` reads its arguments one by one
                blanked, count = self._pattern.subn(lambda found: b"*" * len(found[0]), data)
                return blanked if count else data
        return data


NO_FORMS: Final = KeyForms(())


def is_unencoded(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a body is in no content coding, so that it can be searched."""
    codings = [value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"]
    return all(coding in (b"", b"identity") for coding in codings)


class KeyScrubber:
    """One body on its way. `found` tells whether anything was blanked."""

    __slots__ = ("_forms", "_held", "_looked_at_bytes", "found")

    def __init__(self, forms: KeyForms) -> None:
        self._forms = forms
        self._held = b""
        self._looked_at_bytes = 0
        self.found = False

    def feed(self, piece: bytes) -> bytes:
        """What of the body so far can go on."""
        if self._looked_at_bytes >= MAX_BODY_BYTES:
            return piece if not self._held else self.end() + piece
        self._looked_at_bytes += len(piece)
        data = self._held + piece
        blanked = self._forms.blank(data)
        self.found = self.found or blanked is not data
        kept = self._begun_form(blanked)
        self._held = blanked[len(blanked) - kept :]
        return blanked[: len(blanked) - kept]

    def end(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held

    def _begun_form(self, data: bytes) -> int:
        """The length of the longest end of `data` that a form starts with."""
        longest = max(map(len, self._forms.forms), default=1) - 1
        for count in range(min(longest, len(data)), 0, -1):
            end = data[-count:]
            if any(form.startswith(end) for form in self._forms.forms):
                return count
        return 0
