"""When messages of other processes were sent, by this process's clock. The clocks differ by unknown constants.

A message tells the instant at which it was sent, by its sender's clock. Of the latest messages, the fastest one
took almost no time. So the others were sent as much earlier than they arrived as they took longer than that one.
The result is too late by the time that the fastest one took.

After a silence, messages were held up, or the sender's machine slept and its clock stood still. A second of
messages tells which.
"""

import math
from collections.abc import Hashable
from typing import Final

_REMEMBERED_S: Final = 30.0
"""The fastest message of 30 to 60 s counts. Two clocks drift apart by at most 0.2 ms a second."""

_SILENT_S: Final = 1.0
"""Replicas send several messages a second."""


class _Sender:
    """The messages of one process."""

    __slots__ = ("_before_s", "_heard_at_s", "_least_s", "until_s")

    def __init__(self) -> None:
        self._before_s = math.inf
        self._heard_at_s = math.inf
        self._least_s = math.inf  # the clock of this process less that of the sender, and the least time underway
        self.until_s = -math.inf

    def sent_at_s(self, told_s: float, now: float) -> float:
        if now >= self.until_s:
            self._before_s, self._least_s = self._least_s, math.inf
            self.until_s = now + _REMEMBERED_S
        elif now > self._heard_at_s + _SILENT_S:
            self._before_s, self._least_s = min(self._before_s, self._least_s), math.inf
            self.until_s = now + _SILENT_S
        self._heard_at_s = now
        self._least_s = min(self._least_s, now - told_s)
        return told_s + min(self._before_s, self._least_s)


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
            known = self._senders[sender] = _Sender()
        return min(now, known.sent_at_s(told_s, now))
