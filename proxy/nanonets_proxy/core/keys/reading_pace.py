"""How often 401s may cause a reading of the source: a reading can start a program, or cost money in a store.

| the pace | when | it becomes |
|---|---|---|
| free | a 401 asks for a reading | pausing, for FIRST_PAUSE_S |
| pausing: no 401 starts a reading | the pause ends | free; the next pause is twice as long, up to LONGEST_PAUSE_S |
| either | a reading brings a new key, or the pause ended LONGEST_PAUSE_S ago | free; the next pause is the first |
"""

import math
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class ReadingPace:
    """Instants are seconds of the keyring's clock."""

    _pause_s: float = 0.0
    _free_at_s: float = -math.inf

    def start_reading(self, now: float) -> bool:
        """Returns whether a 401 may start a reading now. If so, a pause begins."""
        if now < self._free_at_s:
            return False
        if now >= self._free_at_s + LONGEST_PAUSE_S:
            self._pause_s = 0.0
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._free_at_s = now + self._pause_s
        return True

    def restart(self) -> None:
        """Ends the pause: the source has brought a new key."""
        self._pause_s, self._free_at_s = 0.0, -math.inf
