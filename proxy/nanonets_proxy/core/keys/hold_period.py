"""The time during which the proxy holds requests because no key is usable, and the probes within it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.key_records import KeyHistory, KeyRecord

PROBE_S: Final = 2.0
"""How long one request alone probes a key. A probe may last minutes, so another request may then probe too."""

PROBE_EVERY_S: Final = 1.0
"""The pause between two probes of one rejected key: an upstream may count failed logins."""

READING_S: Final = 1.0
"""How long requests wait for the reading that a rejection asks for, even if the hold period is shorter."""

REARM_S: Final = 60.0
"""How long after a hold period no other may start, unless the source brought a new key."""


@dataclass(slots=True)
class HoldPeriod:
    """The latest hold period. Instants are seconds of the keyring's clock."""

    began_s: float = -math.inf
    until_s: float = -math.inf
    is_armed: bool = True
    """Whether another hold period may start as soon as no key is usable."""
    probe_until_s: float = -math.inf
    """Until then one request probes a candidate, or a rejected key in a hold period, and no other may."""
    reported_s: float | None = None
    """The beginning of the wait that the log has reported; None if no reported wait is running."""
    _probed: list[KeyRecord] = field(default_factory=list)

    def may_start(self, now: float) -> bool:
        return self.is_armed or now >= self.until_s + REARM_S

    def start(self, now: float, length_s: float) -> None:
        self.began_s, self.until_s = now, now + length_s
        self.is_armed = False
        self.probe_until_s = -math.inf
        self._probed = []

    def end_without_key(self, now: float) -> None:
        """Notes that requests waited in vain, so that the next ones do not wait as long."""
        self.until_s, self.is_armed = now, False

    def end_s(self, *, needs_reading: bool) -> float:
        """Returns the instant until which requests are held; a pending reading can prolong the hold period."""
        return max(self.until_s, self.began_s + READING_S) if needs_reading else self.until_s

    def wait_until_s(
        self, records: Sequence[KeyRecord], history: KeyHistory, now: float, *, needs_reading: bool
    ) -> float | None:
        """Returns the instant at which a held request must ask again; None if it may probe one of the keys now."""
        until_s = self.end_s(needs_reading=needs_reading)
        if not history.may_test_candidate:
            return until_s
        probe_at_s = max(self.probe_at_s(self.next_to_probe(records), history), self.probe_until_s)
        if probe_at_s > now:
            return min(until_s, probe_at_s)
        self.probe_until_s = now + PROBE_S
        history.may_probe = True
        return None

    def next_to_probe(self, records: Sequence[KeyRecord]) -> KeyRecord:
        """Returns the key to probe next: a key that this hold period has not probed, then the longest rejected."""
        return min(records, key=lambda record: (record in self._probed, record.rejected_seq))

    def note_probe(self, record: KeyRecord) -> None:
        self._probed.append(record)

    def probe_at_s(self, record: KeyRecord, history: KeyHistory) -> float:
        """Returns the instant from which a request may probe the key.

        If neither the request nor this hold period has tried the key, the request may probe it at once. Otherwise
        the key rests first. So a rejection that concerned another request alone delays nobody.
        """
        is_new = record not in self._probed and history.is_untried(record)
        return record.rejected_at_s + (0.0 if is_new else PROBE_EVERY_S)
