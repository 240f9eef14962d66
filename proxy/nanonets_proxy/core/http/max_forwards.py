"""Max-Forwards of OPTIONS requests (RFC 9110 §7.6.2). It also concerns TRACE, which the proxy rejects."""

import re
from typing import Final

_COUNT: Final = re.compile(rb"[0-9]{1,9}")


def counted_down(names: tuple[bytes, ...], values: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """Returns the values with one less in Max-Forwards; None if the count is 0, so this is the last recipient.

    Returns the same values if the field is missing, repeated or no number.
    """
    places = [at for at, name in enumerate(names) if name.lower() == b"max-forwards"]
    if len(places) != 1 or not _COUNT.fullmatch(values[places[0]]):
        return values
    (at,) = places
    count = int(values[at])
    return None if count == 0 else (*values[:at], b"%d" % (count - 1), *values[at + 1 :])
