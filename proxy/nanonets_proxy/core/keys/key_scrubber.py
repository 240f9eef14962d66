"""The key scrubber: blanks the key of a request where it appears in the response.

Asterisks replace each form of the key, one for each octet, so the length stays the same. If a piece of a body ends
with the start of a form, the scrubber holds that start back until the next piece decides.
"""

import re
from collections.abc import Sequence
from typing import Final

SEARCHED_FROM_STATUS: Final = 300
"""The bodies of lower statuses are documents and are not searched."""

# Real keys have 36 characters or more. A form as short as a word would blank unrelated text.
_SHORTEST_FORM: Final = 8
_PREFIX_BYTES: Final = 16


class KeyForms:
    """The forms of the key to search for, longest first."""

    __slots__ = ("_pattern", "_prefixes", "forms")

    def __init__(self, forms: Sequence[bytes]) -> None:
        self.forms = tuple(form for form in forms if len(form) >= _SHORTEST_FORM)
        self._pattern = re.compile(b"|".join(map(re.escape, self.forms)) or rb"(?!)")
        # The Base64 forms start alike. Every response is searched, so one search for their common start saves time.
        self._prefixes = tuple({form[:_PREFIX_BYTES] for form in self.forms})

    def blank(self, data: bytes) -> bytes:
        """Returns the data with the key blanked, or `data` itself if it holds no key."""
        for prefix in self._prefixes:
            if data.partition(prefix)[1]:  # faster than `in` and than `find`
                blanked, count = self._pattern.subn(lambda found: b"*" * len(found[0]), data)
                return blanked if count else data
        return data


NO_FORMS: Final = KeyForms(())


class KeyScrubber:
    """Scrubs one body. `found` tells whether anything was blanked."""

    __slots__ = ("_forms", "_held", "found")

    def __init__(self, forms: KeyForms) -> None:
        self._forms = forms
        self._held = b""
        self.found = False

    def feed(self, piece: bytes) -> bytes:
        """Returns the next part of the scrubbed body."""
        data = self._held + piece
        blanked = self._forms.blank(data)
        self.found = self.found or blanked is not data
        kept = self._partial_form_bytes(blanked)
        self._held = blanked[len(blanked) - kept :]
        return blanked[: len(blanked) - kept]

    def end(self) -> bytes:
        """Returns the part that was held back, when the body has ended."""
        held, self._held = self._held, b""
        return held

    def _partial_form_bytes(self, data: bytes) -> int:
        """Returns the length of the longest end of `data` that is the start of a form."""
        longest = max(map(len, self._forms.forms), default=1) - 1
        for count in range(min(longest, len(data)), 0, -1):
            end = data[-count:]
            if any(form.startswith(end) for form in self._forms.forms):
                return count
        return 0
