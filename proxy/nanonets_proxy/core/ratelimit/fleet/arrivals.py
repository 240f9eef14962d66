"""When messages of other processes were sent, by this process's clock. The clocks differ by unknown constants.

A message tells the instant at which it was sent, by its sender's clock. Of the latest messages, the fastest one
took almost no time. So the others were sent as much earlier than they arrived as they took longer than that one.
The result is too late by the time that the fastest one took.

A clock may stand still: the monotonic clock of a suspended machine does. Then all later messages seem late. So the
estimate begins anew once none was fast for a while, and no message counts as very late.

Anybody with the password of Redis can invent senders. So only the latest `MAX_SENDERS` are known.
"""

import math
from collections.abc import Hashable
from typing import Final

MAX_SENDERS: Final = 1000
"""Twice as many as replicas were ever simulated. The sender that was known first is forgotten first."""
_REMEMBERED_S: Final = 30.0
"""The fastest message of 30 to 90 s counts. Two clocks drift apart by about 0.1 ms a second."""
_SLOW_S: Final = 0.25
"""Replicas do without a leader whose responses take longer, so not all messages are so slow for long."""
_ALL_SLOW_S: Final = 1.0
"""If all messages were slow for longer, the clock of the sender has stood still."""
_MOST_LATE_S: Final = 2.0
"""Until then, a message counts as late by at most this."""


class _Sender:
    """The messages of one process."""

    __slots__ = ("_before_s", "_least_s", "_slow_since_s", "until_s")

    def __init__(self) -> None:
        self._before_s = math.inf
        self._least_s = math.inf  # the clock of this process less that of the sender, and the least time underway
        self._slow_since_s = math.inf
        self.until_s = -math.inf

    def sent_at_s(self, told_s: float, now: float) -> float:
        took_s = now - told_s
        if now >= self.until_s:
            self._before_s = self._least_s if now < self.until_s + _REMEMBERED_S else math.inf
            self._least_s = math.inf
            self.until_s = now + _REMEMBERED_S
        self._least_s = min(self._least_s, took_s)
        if took_s - min(self._before_s, self._least_s) < _SLOW_S:
            self._slow_since_s = math.inf
        elif self._slow_since_s + _ALL_SLOW_S < now:
            self._before_s, self._least_s, self._slow_since_s = math.inf, took_s, math.inf
        else:
            self._slow_since_s = min(self._slow_since_s, now)
        return max(now - _MOST_LATE_S, told_s + min(self._before_s, self._least_s))


class Arrivals:
    """Remembers how fast the messages of each sender came."""

    __slots__ = ("_senders",)

    def __init__(self) -> None:
        self._senders: dict[Hashable, _Sender] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def sent_at_s(self, sender: Hashable, told_s: float, now: float) -> float:
        """Returns when a message was sent that tells `told_s`, by the clock of `now`: now, or earlier."""
        known = self._senders.get(sender)
        if known is None:
            since_s = now - _REMEMBERED_S
            self._senders = {name: each for name, each in self._senders.items() if each.until_s > since_s}
            if len(self._senders) >= MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
            known = self._senders[sender] = _Sender()
        return min(now, known.sent_at_s(told_s, now))
