"""Applies evidence about the keys: acceptances, rejections, and the passing of time.

`keyring.py` has the states of a key, `doubts.py` those of a doubted one.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.doubts import BRIEF_S, NOTICE_S, Doubt, UnauthorizedTargets
from nanonets_proxy.core.keys.hold_period import READING_S, HoldPeriod
from nanonets_proxy.core.keys.key_records import (
    KeyEvent,
    KeyEventKind,
    KeyHistory,
    KeyRecord,
    KeyState,
    KeyUse,
    Purpose,
)
from nanonets_proxy.core.keys.known_keys import KnownKeys
from nanonets_proxy.core.keys.reading_pace import ReadingPace

_REJECTION_EVENTS: Final = {
    KeyState.CANDIDATE: KeyEventKind.CANDIDATE_REJECTED,
    KeyState.ACTIVE: KeyEventKind.ACTIVE_REJECTED,
    KeyState.PREVIOUS: KeyEventKind.PREVIOUS_REJECTED,
}


@dataclass(slots=True)
class Evidence:
    """Changes the states of the known keys. `seq` is the sequence number of the response."""

    known: KnownKeys
    hold_s: float
    """How long requests wait while no key is usable."""
    needs_reading: bool = False
    """Whether the key manager must read the source."""
    hold: HoldPeriod = field(default_factory=HoldPeriod)
    unauthorized: UnauthorizedTargets = field(default_factory=UnauthorizedTargets)
    pace: ReadingPace = field(default_factory=ReadingPace)

    def accept(self, use: KeyUse, now: float) -> list[KeyEvent]:
        """Notes that the upstream accepted a request."""
        record = use.record
        if record.state is KeyState.REJECTED and use.chosen_seq < record.rejected_seq:
            return []
        record.accepted_seq = max(record.accepted_seq, use.chosen_seq)
        events = self._end_doubt(record, use.chosen_seq, now)
        active = self.known.active()
        if record is active or (active is not None and record is not self.known.source_key):
            return events + self.tick(now)
        if active is not None:
            self.known.replace(active, now)
        record.state = KeyState.ACTIVE
        self.known.refresh(now)
        return [*events, KeyEvent(KeyEventKind.ACTIVATED, record), *self.tick(now)]

    def _end_doubt(self, record: KeyRecord, accepted_seq: int, now: float) -> list[KeyEvent]:
        """Remembers as unauthorized the targets that the upstream rejected before it accepted the key again."""
        if record.doubt is None or not (cleared := record.doubt.clear(accepted_seq)):
            return []
        if not record.doubt.first_rejections:
            record.doubt = None
        for target in cleared:
            self.unauthorized.note(target, now)
        events = [KeyEvent(KeyEventKind.REQUEST_REJECTED, record, target=target) for target in cleared]
        source_key = self.known.source_key
        if source_key is record or source_key.state is not KeyState.REJECTED or source_key.doubt is None:
            return events
        if all(self.unauthorized.knows(target, now) for target in source_key.doubt.first_rejections):
            source_key.state, source_key.doubt = KeyState.CANDIDATE, None
            self.known.refresh(now)
            events.append(KeyEvent(KeyEventKind.CANDIDATE_FOUND, source_key))
        return events

    def reject(self, use: KeyUse, history: KeyHistory | None, seq: int, now: float) -> list[KeyEvent]:
        """Notes a 401. If `history` is None, the key manager's own probe got it."""
        record, target = use.record, history.target if history is not None else ""
        # The 401 may be older than the latest acceptance.
        is_outdated = use.chosen_seq < record.accepted_seq
        if is_outdated and record.state is KeyState.CANDIDATE:
            return []
        if use.purpose is Purpose.REPEAT or (history is not None and self.unauthorized.knows(target, now)):
            return []
        if record.state is KeyState.REJECTED:
            if not is_outdated:
                record.rejected_at_s, record.rejected_seq = now, seq
            return []
        if record.doubt is None:
            record.doubt = Doubt(self._doubt_length_s(now))
            if record.state is not KeyState.CANDIDATE:
                self._ask_for_reading(now)
        record.doubt.note(target, seq, now, counts=not is_outdated)
        is_probe = history is None and not is_outdated
        if not (is_probe or record.doubt.is_confirmed or record.state is KeyState.CANDIDATE):
            return self.tick(now)
        return [*self._reject_key(record, seq, now), *self.tick(now)]

    def _reject_key(self, record: KeyRecord, seq: int, now: float) -> list[KeyEvent]:
        """Makes a usable key REJECTED. Starts a hold period if no other key is usable."""
        was_preferred = self.known.usable[:1] == [record]
        before, record.state = record.state, KeyState.REJECTED
        record.rejected_at_s, record.rejected_seq = now, seq
        events = [KeyEvent(_REJECTION_EVENTS[before], record)]
        if before is KeyState.ACTIVE:
            self._ask_for_reading(now)
        self.known.refresh(now)
        if was_preferred and (doubt := self.known.doubt) is not None:
            doubt.begin_anew(now, self._doubt_length_s(now))
        if not self.known.usable and self.hold.may_start(now):
            self.needs_reading = True
            # A wrong key from the start is no rotation: requests wait for one reading only.
            has_worked = self.known.has_ever_worked()
            self.hold.start(now, self.hold_s if has_worked else 0.0)
            self.hold.is_armed = not has_worked
            if has_worked and self.hold.reported_s is None:
                self.hold.reported_s = now
                events.append(KeyEvent(KeyEventKind.HOLD_STARTED, record))
        return events

    def _ask_for_reading(self, now: float) -> None:
        self.needs_reading = self.needs_reading or self.pace.start_reading(now)

    def _doubt_length_s(self, now: float) -> float:
        return self.hold_s if self.hold.may_start(now) else min(BRIEF_S, self.hold_s)

    def is_waiting(self, now: float) -> bool:
        """Returns whether a new key would help: in a hold period, and while the preferred key is doubted."""
        if not self.known.usable:
            return self.is_holding(now)
        return now < self.doubt_end_s(self.known.usable[0])

    def next_tick_s(self, now: float) -> float:
        """Returns the next instant at which `tick` is due for a request whose 401 is kept."""
        first = next(iter(self.known.usable), None)
        if first is None or first.doubt is None:
            return self.hold.end_s(needs_reading=self.needs_reading)
        end_s, notice_s = self.doubt_end_s(first), first.doubt.began_s + NOTICE_S
        return notice_s if now < notice_s < end_s else end_s

    def tick(self, now: float) -> list[KeyEvent]:
        """Returns the events that are due because time has passed: a wait became long, or has ended."""
        events, hold = [], self.hold
        first = next(iter(self.known.usable), self.known.source_key)
        doubt = first.doubt if self.known.usable else None
        if doubt is not None and now >= self.doubt_end_s(first):
            if not doubt.is_over:
                doubt.is_over = True
                hold.end_without_key(now)
        elif doubt is not None and now >= doubt.began_s + NOTICE_S and hold.reported_s is None:
            hold.reported_s = doubt.began_s
            events.append(KeyEvent(KeyEventKind.HOLD_STARTED, first))
        if hold.reported_s is not None and not self.is_waiting(now):
            lasted_s, hold.reported_s = now - hold.reported_s, None
            events.append(KeyEvent(KeyEventKind.HOLD_ENDED, first, lasted_s=lasted_s))
        return events

    def doubt_end_s(self, record: KeyRecord) -> float:
        """Returns the instant until which 401s with the key wait; a pending reading can prolong the doubt."""
        doubt = record.doubt
        if doubt is None:
            return -math.inf
        return max(doubt.end_s, doubt.began_s + READING_S) if self.needs_reading else doubt.end_s

    def is_holding(self, now: float) -> bool:
        return now < self.hold.end_s(needs_reading=self.needs_reading)
