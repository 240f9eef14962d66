"""Doubts: a key that has worked got a 401, which may concern the key or its request alone.

| a usable key is | when | it becomes |
|---|---|---|
| trusted | the upstream rejects a request of a target that is not known as unauthorized | doubted |
| doubted | the upstream accepts a request that chose the key after the first 401 | trusted [1] |
| doubted | the upstream rejects a request of a second target [2], or a probe | REJECTED (`keyring.py`) |

[1] The target is known as unauthorized from then on. The key stays doubted if a later 401 had another target.
[2] If both requests chose the key after the latest accepted request did. Otherwise the 401 may be older than the
acceptance: it makes its own request wait, but does not count against the key.

A target is a method and a path, and all requests of one target count once. Only requests that got a 401 wait for
the end of a doubt. Other requests use the key meanwhile, and their responses decide. If nothing decides until
`Doubt.end_s`, the 401 is the response.
"""

import math
from dataclasses import dataclass, field
from typing import Final

MOST_TARGETS: Final = 256
"""How many targets are remembered as unauthorized, and how many one doubt may concern."""

REMEMBERED_S: Final = 600.0
"""How long a target is remembered as unauthorized: permissions change."""

BRIEF_S: Final = 0.25
"""How long a 401 waits if an earlier wait has ended without a new key: enough for other requests to decide."""

NOTICE_S: Final = 1.0
"""A doubt that lasts longer is reported and probed: no other request shows whether the key works."""

MOST_PROBE_PAUSE_S: Final = 60.0
"""The longest pause between two probes, while 401s keep coming and nothing decides."""

ALARMING_401S: Final = 3
"""How many 401s without any accepted request are reported as an alarm, even if all have one target."""

_CONFIRMING_TARGETS: Final = 2


@dataclass(slots=True)
class UnauthorizedTargets:
    """The targets that the upstream rejects although the key works; a bounded memory."""

    _until_s: dict[str, float] = field(default_factory=dict)

    def note(self, target: str, now: float) -> None:
        """Remembers the target, and forgets the oldest one if there are too many."""
        self._until_s.pop(target, None)
        self._until_s[target] = now + REMEMBERED_S
        if len(self._until_s) > MOST_TARGETS:
            del self._until_s[next(iter(self._until_s))]

    def knows(self, target: str, now: float) -> bool:
        return bool(self._until_s) and now < self._until_s.get(target, now)


@dataclass(slots=True)
class Doubt:
    """The targets that the upstream rejected with one key. `length_s`: how long their requests wait."""

    length_s: float
    first_rejections: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Sequence number and instant of each target's first 401."""
    is_over: bool = False
    """Whether `end_s` has passed without a decision."""
    count: int = 0
    """The number of 401s."""
    _probe_at_s: float = -math.inf
    """The earliest instant of the key manager's next probe."""
    _probe_pause_s: float = 0.0
    _count_at_probe: int = 0
    _counted: set[str] = field(default_factory=set)

    def note(self, target: str, seq: int, now: float, *, counts: bool) -> None:
        """Notes a 401. `counts`: whether it may confirm that the upstream rejects the key."""
        self.count += 1
        if len(self.first_rejections) < MOST_TARGETS:
            self.first_rejections.setdefault(target, (seq, now))
        if counts:
            self._counted.add(target)

    def begin_anew(self, now: float, length_s: float) -> None:
        """Restarts the wait: the key has become the only one left, and requests with a 401 depend on it."""
        self.length_s, self.is_over = length_s, False
        self.first_rejections = {target: (seq, now) for target, (seq, _) in self.first_rejections.items()}

    def note_probe(self, now: float) -> None:
        """Notes a probe of the key manager. The pause before the next one doubles, up to MOST_PROBE_PAUSE_S."""
        self._probe_pause_s = min(max(NOTICE_S, 2 * self._probe_pause_s), MOST_PROBE_PAUSE_S)
        self._probe_at_s, self._count_at_probe = now + self._probe_pause_s, self.count

    @property
    def next_probe_s(self) -> float:
        """The instant of the next probe; infinite if no 401 has come since the last probe."""
        if self.count == self._count_at_probe:
            return math.inf
        return max(self.began_s + NOTICE_S, self._probe_at_s)

    def clear(self, accepted_seq: int) -> list[str]:
        """Drops and returns the targets whose first 401 came before the choice of an accepted request."""
        cleared = [target for target, (seq, _) in self.first_rejections.items() if seq < accepted_seq]
        for target in cleared:
            del self.first_rejections[target]
        self._counted.difference_update(cleared)
        return cleared

    @property
    def needs_attention(self) -> bool:
        """Whether operators should look: at least ALARMING_401S, and no response shows that the key works."""
        return self.is_over and self.count >= ALARMING_401S

    @property
    def is_confirmed(self) -> bool:
        return len(self._counted) >= _CONFIRMING_TARGETS

    @property
    def began_s(self) -> float:
        return min(at_s for _, at_s in self.first_rejections.values())

    @property
    def end_s(self) -> float:
        return self.began_s + self.length_s
