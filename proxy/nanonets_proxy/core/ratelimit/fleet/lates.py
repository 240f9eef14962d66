"""Whether Redis is late again and again. Then each replica does better with its share, or with new connections."""

from typing import Final

LATE_S: Final = 0.05
"""A message or a command that takes longer is late."""
MOST_LATE: Final = 6
"""A single late one is an accident. So many in a row are not."""


class Lates:
    """Counts the late ones in a row, of one kind."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def note(self, took_s: float) -> bool:
        """Notes how long one took. Returns whether `MOST_LATE` in a row were late; then it counts anew."""
        self._count = self._count + 1 if took_s > LATE_S else 0
        if self._count < MOST_LATE:
            return False
        self._count = 0
        return True
