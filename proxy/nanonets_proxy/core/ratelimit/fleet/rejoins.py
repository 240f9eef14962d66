"""When a replica may join a leader again.

A replica that joins a leader grants nothing until it is welcome. If a leader only beats, the replica would join it
with each beat, and its requests would wait most of the time. So the replica waits longer and longer, and meanwhile
it uses its share.
"""

import math
from typing import Final

_STEADY_S: Final = 1.0
"""A time with a leader that was shorter was of no use."""
_PAUSES_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""After each short time in a row. The first may be an accident: the leader stood still, or Redis did."""
_MAX_LEADERS: Final = 8


class Rejoins:
    """Counts the short times with each leader, one after the other."""

    __slots__ = ("_leader", "_short", "_since_s")

    def __init__(self) -> None:
        self._leader = ""  # empty: none
        self._since_s = -math.inf
        self._short: dict[str, tuple[int, float]] = {}  # of each leader: how many, and when the next may begin

    def joined(self, leader: str, now: float) -> None:
        """Notes that a time with this leader begins, and that another one has ended; empty: with none."""
        self.left(now)
        self._leader, self._since_s = leader, now

    def left(self, now: float) -> None:
        """Notes that the time with the leader has ended, if there is one."""
        leader, self._leader = self._leader, ""
        if not leader:
            return
        count, _ = self._short.pop(leader, (0, 0.0))
        if now - self._since_s >= _STEADY_S:
            return
        self._short[leader] = (count + 1, now + _PAUSES_S[min(count, len(_PAUSES_S) - 1)])
        if len(self._short) > _MAX_LEADERS:
            del self._short[next(iter(self._short))]

    def may_join(self, leader: str, now: float) -> bool:
        """Returns whether the pause after the latest short time with this leader is over."""
        return leader not in self._short or now >= self._short[leader][1]
