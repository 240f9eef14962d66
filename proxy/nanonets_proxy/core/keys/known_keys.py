"""The keys that the keyring knows, and the order in which it prefers them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.doubts import Doubt
from nanonets_proxy.core.keys.key_records import FoundKey, KeyRecord, KeyState, KeyWarning

MOST_UNLISTED: Final = 2
"""How many previous keys, and how many rejected keys, are kept beside the keys of the latest reading."""

_KEY_REJECTED: Final = "key_rejected: the upstream rejects the API key of the proxy"
_REQUEST_REJECTED: Final = "request_rejected: the upstream rejects this request, not the key"
_UNAUTHORIZED: Final = "unauthorized: the upstream rejects this request or the API key of the proxy"

_PREFERENCE: Final = (KeyState.CANDIDATE, KeyState.ACTIVE, KeyState.PREVIOUS)


@dataclass(slots=True)
class KnownKeys:
    """Keeps the records. Call `refresh` after each change of a record's state."""

    grace_s: float
    """How long a replaced key is kept."""
    records: list[KeyRecord] = field(default_factory=list)
    reading: list[KeyRecord] = field(default_factory=list)
    """The keys of the source's latest reading, the newest first."""
    usable: list[KeyRecord] = field(default_factory=list)
    """The keys that are not rejected, the preferred first."""
    sole_choice: KeyRecord | None = None
    """The active key, if it is preferred to all others and no grace time is running."""
    next_expiry_s: float = math.inf
    """When the next grace time ends."""

    def take_reading(self, found: Sequence[FoundKey], now: float) -> None:
        """Records the keys of a reading, the newest first. A key that was unknown becomes PREVIOUS."""
        self.reading = [self._record_of(item, now) for item in found]

    def _record_of(self, found: FoundKey, now: float) -> KeyRecord:
        for record in self.records:
            if record.key == found.key:
                record.key = found.key  # the source may have a new name for it
                return record
        record = KeyRecord(found.key, KeyState.PREVIOUS, found.created_at_s, expires_at_s=now + self.grace_s)
        self.records.append(record)
        return record

    def replace(self, record: KeyRecord, now: float) -> None:
        """Makes a key PREVIOUS and starts its grace time."""
        record.state = KeyState.PREVIOUS
        record.expires_at_s = now + self.grace_s

    @property
    def source_key(self) -> KeyRecord:
        """The key that the source holds."""
        return self.reading[0]

    @property
    def serving_key(self) -> KeyRecord:
        """The preferred usable key that is not a candidate; if there is none, the source key."""
        proven = [record for record in self.usable if record.state is not KeyState.CANDIDATE]
        return proven[0] if proven else self.source_key

    @property
    def doubt(self) -> Doubt | None:
        """The doubt about the preferred usable key."""
        return self.usable[0].doubt if self.usable else None

    @property
    def is_doubted(self) -> bool:
        """Whether the upstream rejects every request, so that operators should look."""
        return self.doubt is not None and self.doubt.needs_attention

    def next_probe_s(self, *, requests_probe: bool) -> float:
        """Returns when the key manager must probe the preferred key; -inf if now, inf if never.

        It probes a candidate and a doubted key. But if requests serve as probes, it probes only a key whose doubt
        lasts.
        """
        doubt = self.doubt
        if requests_probe:
            return math.inf if doubt is None else doubt.next_probe_s
        is_open = bool(self.usable) and (self.usable[0].state is KeyState.CANDIDATE or doubt is not None)
        return -math.inf if is_open else math.inf

    def reason_of_401(self) -> str:
        """Returns what a 401 concerns, as far as it is known."""
        if not self.usable or self.is_doubted:
            return _KEY_REJECTED
        return _REQUEST_REJECTED if self.doubt is None else _UNAUTHORIZED

    def mistakes(self) -> list[str]:
        """Returns a sentence if the source holds text that does not look like a key."""
        key = self.source_key.key
        mistake = key.mistake()
        return [] if mistake is None else [f"the API key of {key.name} {mistake}"]

    def is_candidate_rejected(self) -> bool:
        """Returns whether the upstream rejects the key that the source holds."""
        return self.source_key.state is KeyState.REJECTED

    def has_ever_worked(self) -> bool:
        """Returns whether the upstream has accepted any of the keys."""
        return any(record.accepted_seq for record in self.records)

    def warnings(self, *, wall_now_s: float, max_age_s: float) -> list[KeyWarning]:
        """Returns the current warnings. If `max_age_s` is 0, no key is too old."""
        warnings = []
        if not self.usable:
            warnings.append(KeyWarning.NO_KEY_ACCEPTED)
        elif self.is_candidate_rejected():
            warnings.append(KeyWarning.CANDIDATE_REJECTED)
        if self.is_doubted:
            warnings.append(KeyWarning.DOUBTED)
        if max_age_s and wall_now_s - self.serving_key.created_at_s >= max_age_s:
            warnings.append(KeyWarning.OLD)
        return warnings

    def active(self) -> KeyRecord | None:
        return next((record for record in self.records if record.state is KeyState.ACTIVE), None)

    def refresh(self, now: float) -> None:
        """Forgets the keys that no request can need any more, and ranks the others."""
        active = self.active()
        unlisted = [record for record in self.records if record not in self.reading]
        previous = [r for r in _ranked(unlisted) if r.state is KeyState.PREVIOUS]
        if active is not None:
            previous = [r for r in previous if r.expires_at_s > now]
        rejected = [r for r in unlisted if r.state is KeyState.REJECTED and active is None]
        rejected.sort(key=lambda record: (record.accepted_seq, record.rejected_seq), reverse=True)
        kept = [active, *previous[:MOST_UNLISTED], *rejected[:MOST_UNLISTED], *self.reading]
        self.records = [record for record in self.records if record in kept]
        self.usable = _ranked(self.records)
        expiries = [] if active is None else [r.expires_at_s for r in previous]
        self.next_expiry_s = min(expiries, default=math.inf)
        is_sole = not expiries and self.usable[:1] == [active]
        self.sole_choice = active if is_sole else None


def _ranked(records: Sequence[KeyRecord]) -> list[KeyRecord]:
    """Returns the records that are not rejected, the preferred first."""
    usable = [record for record in records if record.state is not KeyState.REJECTED]
    return sorted(usable, key=lambda record: (_PREFERENCE.index(record.state), -record.expires_at_s))
