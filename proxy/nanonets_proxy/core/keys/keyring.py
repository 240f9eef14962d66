"""The keyring: which key a request goes out with, and what its answer says of that key. A pure core.

The source of the key gives *readings*: one key, or the current one and those before it. The first key of a
reading is its *head*; *no reading has it* speaks of the latest. A key that is known is in one state:

| a key is | on | becomes |
|---|---|---|
| unknown | a reading: as its head / further down | CANDIDATE / PREVIOUS |
| CANDIDATE | accepted | ACTIVE, and the active one PREVIOUS |
| CANDIDATE | refused | REFUSED: put aside, the others go on serving |
| CANDIDATE | a reading: further down, or without it | PREVIOUS |
| ACTIVE | refused | REFUSED, and the source is to be read again |
| PREVIOUS | a reading: as its head (somebody went back to it) | CANDIDATE |
| PREVIOUS | accepted, while none is ACTIVE | ACTIVE |
| PREVIOUS | refused | REFUSED |
| PREVIOUS | no reading has it; others came after, or another is ACTIVE and its grace time is over | unknown |
| REFUSED | a reading: as its head, where it was not the head, or on demand | CANDIDATE |
| REFUSED | accepted, while none is ACTIVE or as the head | ACTIVE |
| REFUSED | no reading has it; others came after, or another is ACTIVE | unknown |

A key that is not REFUSED is *in good standing*. As long as there is one, the keyring SERVES:

| the keyring is | on | becomes |
|---|---|---|
| SERVING | the last key in good standing is refused | GAP, or SPENT if it may not hold again |
| GAP: requests are held, one at a time history | a key is accepted, or a reading has a new head | SERVING |
| GAP | its time is over | SPENT |
| SPENT: requests go, whatever comes | a key is accepted, or a reading has a new head | SERVING |

A request history each key once. Is it refused with one that has served others since, then for its own sake:
it goes once more, and what comes is its answer and says nothing of the key.

Evidence: an acceptance counts against an earlier refusal only if its request was sent after that had come; a
refusal of a request that was sent before an accepted one does not count.

Instants are seconds of one monotonic clock. Ages are on the wall clock, as sources tell them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.key_records import (
    FoundKey,
    KeyEvent,
    KeyEventKind,
    KeyHistory,
    KeyRecord,
    KeyringState,
    KeyState,
    KeyUse,
    KeyVerdict,
    KeyWarning,
    Purpose,
)

TRIAL_S: Final = 2.0
"""A trial may be a call of minutes: after this time another request may try the key as well."""

PROBE_EVERY_S: Final = 1.0
"""How soon a key that was refused within a gap is tried again in it: an upstream counts refused logins."""

READING_S: Final = 1.0
"""How long requests wait for the reading that a refusal asks for, however short the gap is."""

REARM_S: Final = 60.0
"""After a gap that no reading ended: before this time has passed since, there is no other one."""


# As attributes of their class they cost a call at each look, in Python 3.11.
_ACTIVE, _PLAIN, _TRIAL, _PROBE = KeyState.ACTIVE, Purpose.PLAIN, Purpose.TRIAL, Purpose.PROBE
_ACCEPTED, _REFUSED = KeyVerdict.ACCEPTED, KeyVerdict.REJECTED
_NO_EVENTS: Final[Sequence[KeyEvent]] = ()


@dataclass(frozen=True, slots=True)
class KeyringPolicy:
    """`hold_s`: how long requests are held while no key works. `grace_s`: how long a replaced key is kept.

    `requests_probe`: whether requests try a candidate; otherwise a probe of the shell's own does.
    """

    hold_s: float = 5.0
    grace_s: float = 900.0
    requests_probe: bool = True


MOST_PREVIOUS: Final = 2
"""How many replaced keys, and how many refused ones, are kept beside those of the reading."""

_PREFERENCE: Final = (KeyState.CANDIDATE, KeyState.ACTIVE, KeyState.PREVIOUS)

_REFUSAL_EVENTS: Final = {
    KeyState.CANDIDATE: KeyEventKind.CANDIDATE_REJECTED,
    KeyState.ACTIVE: KeyEventKind.ACTIVE_REJECTED,
    KeyState.PREVIOUS: KeyEventKind.PREVIOUS_REJECTED,
}


@dataclass(slots=True)
class _Gap:
    """The latest gap. `allowed`: whether another one may follow as soon as it is needed."""

    began_s: float = -math.inf
    until_s: float = -math.inf
    allowed: bool = True
    probed: list[KeyRecord] = field(default_factory=list)


@dataclass(slots=True)
class Keyring:
    """Start it with a reading. `wants_reading` is for the shell to answer, by `read` or `unread`."""

    policy: KeyringPolicy
    wants_reading: bool = False
    _records: list[KeyRecord] = field(default_factory=list)
    _reading: list[KeyRecord] = field(default_factory=list)
    _gap: _Gap = field(default_factory=_Gap)
    _trial_until_s: float = -math.inf  # of a candidate, or of a probe in a gap: never both
    _moment: int = 0  # counts choices and answers
    _standing: list[KeyRecord] = field(default_factory=list)
    """The keys in good standing, the preferred first; `_tidy` follows each change of a state."""
    _tidy_at_s: float = math.inf
    """The end of the next grace time."""
    _usual: KeyRecord | None = None
    """The active key, where it is preferred to all others and no grace time is running; `_tidy` again."""

    # --- what the source says -----------------------------------------------------------------

    def read(self, found: Sequence[FoundKey], now: float, *, on_demand: bool = False) -> list[KeyEvent]:
        """Takes in a reading, head first, never empty. `on_demand`: a refused head gets another chance."""
        self.wants_reading = False
        before = self._reading[0] if self._reading else None
        self._reading = [self._record_of(item, now) for item in found]
        head = self._reading[0]
        is_new = head is not before
        for record in self._records:
            if record.state is KeyState.CANDIDATE and record is not head:
                self._replace(record, now)
        if head.state is KeyState.PREVIOUS or (head.state is KeyState.REJECTED and (is_new or on_demand)):
            head.state = KeyState.CANDIDATE
        self._tidy(now)
        if not is_new:
            return []
        self._gap.allowed = True
        self._trial_until_s = -math.inf
        return [KeyEvent(KeyEventKind.CANDIDATE_FOUND, head)] if head.state is KeyState.CANDIDATE else []

    def unread(self) -> None:
        """The reading that was wanted failed: what is known stays."""
        self.wants_reading = False

    # --- what a request does ------------------------------------------------------------------

    def has_usable_key(self) -> bool:
        """Whether a key is in good standing: no request has to be held."""
        return bool(self._standing)

    def hold_until_s(self, history: KeyHistory, now: float) -> float | None:
        """When to ask again, at the latest, for a request that has to be held. None: it may go."""
        if self._standing or not self._holds(now):
            return None
        until_s = max(self._gap.until_s, self._reading_until_s)
        if not history.may_test_candidate:
            return until_s
        probe_at_s = self._probe_at_s(history)
        if probe_at_s > now:
            return min(until_s, probe_at_s)
        self._trial_until_s = now + TRIAL_S
        history.may_probe = True
        return None

    def choose_fast(self) -> KeyUse | None:
        """The key to go with for a request that was refused with none, while there is nothing to be thought over;
        otherwise None: ask `choose`."""
        if self._usual is None:
            return None
        self._moment += 1
        use = KeyUse()
        use.record, use.purpose, use.sent_no = self._usual, _PLAIN, self._moment
        return use

    def choose(self, history: KeyHistory, now: float, *, may_hold: bool = True) -> KeyUse | None:
        """The key to go with; None if the request has to be held."""
        if now >= self._tidy_at_s:
            self._tidy(now)
        standing = self._standing
        fresh = [record for record in standing if history.is_fresh(record)] if history.rejections else standing
        if fresh:
            return self._first_of(fresh, history, now)
        if standing:
            record = standing[0]
            served_others = record.proven_no > history.last_refusal_no(record)
            return self._use(record, Purpose.REPEAT if served_others else _PLAIN)
        if not (may_hold and self._holds(now)):
            return self._use(self._oldest_refused, Purpose.LAST)
        if history.may_probe:
            history.may_probe = False
            oldest = self._oldest_refused
            self._gap.probed.append(oldest)
            return self._use(oldest, _PROBE)
        return None

    def choose_candidate(self) -> KeyUse | None:
        """The candidate, for a probe of the shell's own."""
        first = next(iter(self._standing), None)
        return self._use(first, Purpose.TRIAL) if first and first.state is KeyState.CANDIDATE else None

    def settle(
        self, use: KeyUse, verdict: KeyVerdict, now: float, history: KeyHistory | None = None
    ) -> Sequence[KeyEvent]:
        """Ends a use; notes a refusal in the `history` of its request."""
        self._moment += 1
        record, purpose = use.record, use.purpose
        if verdict is _ACCEPTED and record.state is _ACTIVE and purpose is _PLAIN:  # nearly always
            if use.sent_no > record.proven_no:
                record.proven_no = use.sent_no
            return _NO_EVENTS
        if history is not None and verdict is _REFUSED:
            history.rejections = (*history.rejections, (record, self._moment))
        if purpose in (_TRIAL, _PROBE):
            self._trial_until_s = -math.inf
        if record in self._records and verdict is _ACCEPTED:
            return self._accept(use, now)
        if record in self._records and verdict is _REFUSED:
            return self._refuse(use, now)
        return _NO_EVENTS

    def is_final(self, use: KeyUse, history: KeyHistory, now: float) -> bool:
        """Whether the refusal of `use`, just settled, is the request's answer; it is to go again otherwise."""
        standing = self._standing
        if any(history.is_fresh(record) for record in standing):
            return False
        if use.purpose is Purpose.LAST:
            return True
        return use.purpose is Purpose.REPEAT and (bool(standing) or not self._holds(now))

    # --- what there is to see -----------------------------------------------------------------

    @property
    def records(self) -> Sequence[KeyRecord]:
        return tuple(self._records)

    @property
    def head(self) -> KeyRecord:
        """What the source holds."""
        return self._reading[0]

    @property
    def best(self) -> KeyRecord:
        """The key that serves; where none does, the one that the source holds."""
        proven = [record for record in self._standing if record.state is not KeyState.CANDIDATE]
        return proven[0] if proven else self.head

    def state(self, now: float) -> KeyringState:
        if self._standing:
            return KeyringState.SERVING
        return KeyringState.HOLDING if self._holds(now) else KeyringState.EXHAUSTED

    def warnings(self, *, wall_now_s: float, max_age_s: float) -> list[KeyWarning]:
        """`max_age_s` 0: no key is too old."""
        warnings = []
        if not self._standing:
            warnings.append(KeyWarning.NO_KEY_ACCEPTED)
        elif self.head.state is KeyState.REJECTED:
            warnings.append(KeyWarning.CANDIDATE_REJECTED)
        if max_age_s and wall_now_s - self.best.created_at_s >= max_age_s:
            warnings.append(KeyWarning.OLD)
        return warnings

    # --- inside -------------------------------------------------------------------------------

    def _record_of(self, found: FoundKey, now: float) -> KeyRecord:
        for record in self._records:
            if record.key == found.key:
                record.key = found.key  # by the name that the source has for it now
                return record
        record = KeyRecord(found.key, KeyState.PREVIOUS, found.created_at_s, expires_at_s=now + self.policy.grace_s)
        self._records.append(record)
        return record

    def _replace(self, record: KeyRecord, now: float) -> None:
        record.state = KeyState.PREVIOUS
        record.expires_at_s = now + self.policy.grace_s

    def _first_of(self, fresh: Sequence[KeyRecord], history: KeyHistory, now: float) -> KeyUse:
        first = fresh[0]
        if first.state is not KeyState.CANDIDATE:
            return self._use(first, Purpose.PLAIN)
        may_test_candidate = (
            history.may_test_candidate and self.policy.requests_probe and now >= self._trial_until_s
        )
        if len(fresh) > 1 and not may_test_candidate:
            return self._use(fresh[1], Purpose.PLAIN)
        self._trial_until_s = now + TRIAL_S
        return self._use(first, Purpose.TRIAL)

    def _use(self, record: KeyRecord, purpose: Purpose) -> KeyUse:
        self._moment += 1
        use = KeyUse()
        use.record, use.purpose, use.sent_no = record, purpose, self._moment
        return use

    def _accept(self, use: KeyUse, now: float) -> list[KeyEvent]:
        record = use.record
        if record.state is KeyState.REJECTED and use.sent_no < record.refused_no:
            return []
        record.proven_no = max(record.proven_no, use.sent_no)
        if record.state is _ACTIVE:
            return []
        active = self._active()
        if active is not None and record is not self.head:
            return []
        if active is not None:
            self._replace(active, now)
        record.state = _ACTIVE
        self._tidy(now)
        return [KeyEvent(KeyEventKind.ACTIVATED, record)]

    def _refuse(self, use: KeyUse, now: float) -> list[KeyEvent]:
        record = use.record
        if use.purpose is Purpose.REPEAT or use.sent_no < record.proven_no:
            return []
        before, record.state = record.state, KeyState.REJECTED
        record.refused_at_s, record.refused_no = now, self._moment
        if before is KeyState.REJECTED:
            return []
        events = [KeyEvent(_REFUSAL_EVENTS[before], record)]
        if before is KeyState.ACTIVE:
            self.wants_reading = True
        self._tidy(now)
        if not self._standing and (self._gap.allowed or now >= self._gap.until_s + REARM_S):
            self.wants_reading = True
            self._gap = _Gap(now, now + self.policy.hold_s, allowed=False)
            self._trial_until_s = -math.inf
            events.append(KeyEvent(KeyEventKind.GAP_OPENED, record))
        return events

    def _active(self) -> KeyRecord | None:
        return next((record for record in self._records if record.state is KeyState.ACTIVE), None)

    def _tidy(self, now: float) -> None:
        """Forgets what no one may need again, and ranks what is left."""
        active = self._active()
        others = [record for record in self._records if record not in self._reading]
        previous = [r for r in _ranked(others) if r.state is KeyState.PREVIOUS]
        if active is not None:
            previous = [r for r in previous if r.expires_at_s > now]
        refused = [r for r in others if r.state is KeyState.REJECTED and active is None]
        refused.sort(key=lambda record: (record.proven_no, record.refused_no), reverse=True)
        kept = [active, *previous[:MOST_PREVIOUS], *refused[:MOST_PREVIOUS], *self._reading]
        self._records = [record for record in self._records if record in kept]
        self._standing = _ranked(self._records)
        ends = [] if active is None else [r.expires_at_s for r in previous]
        self._tidy_at_s = min(ends, default=math.inf)
        is_usual = not ends and self._standing[:1] == [active]
        self._usual = active if is_usual else None

    def _holds(self, now: float) -> bool:
        return now < self._gap.until_s or now < self._reading_until_s

    @property
    def _reading_until_s(self) -> float:
        return self._gap.began_s + READING_S if self.wants_reading else -math.inf

    @property
    def _oldest_refused(self) -> KeyRecord:
        """The next to be probed in a gap: what has not been tried in this gap comes first."""
        return min(self._records, key=lambda record: (record in self._gap.probed, record.refused_no))

    def _probe_at_s(self, history: KeyHistory) -> float:
        """When this request may probe in a gap: with a key that is new to it and to the gap at once, so that a
        refusal for another request's own sake holds no one up; else when the key has rested."""
        oldest = self._oldest_refused
        is_new = oldest not in self._gap.probed and history.is_fresh(oldest)
        rested_at_s = oldest.refused_at_s + (0.0 if is_new else PROBE_EVERY_S)
        return max(rested_at_s, self._trial_until_s)


def _ranked(records: Sequence[KeyRecord]) -> list[KeyRecord]:
    """Those in good standing, the preferred first."""
    standing = [record for record in records if record.state is not KeyState.REJECTED]
    return sorted(standing, key=lambda record: (_PREFERENCE.index(record.state), -record.expires_at_s))
