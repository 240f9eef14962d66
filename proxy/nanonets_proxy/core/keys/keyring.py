"""The keyring: chooses the key for each request, and learns from the responses which keys work. A pure core.

The source of the key gives *readings*: one key, or the current key and those before it. The *source key* is the
first key of the latest reading. Every known key is in one state:

| a key is | when | it becomes |
|---|---|---|
| unknown | a reading lists it first / further down | CANDIDATE / PREVIOUS |
| CANDIDATE | the upstream accepts it | ACTIVE, and the active key becomes PREVIOUS |
| CANDIDATE | the upstream rejects it | REJECTED; the other keys stay in use [2] |
| CANDIDATE | a reading lists it further down, or not at all | PREVIOUS |
| ACTIVE | the upstream rejects it for two targets, or in a probe [3] | REJECTED; the keyring asks for a reading |
| PREVIOUS | a reading lists it first (somebody went back to it) | CANDIDATE |
| PREVIOUS | the upstream accepts it, while no key is ACTIVE | ACTIVE |
| PREVIOUS | the upstream rejects it for two targets [3] | REJECTED |
| PREVIOUS | the grace time ends while another key is ACTIVE [1] | unknown |
| REJECTED | a reading lists it first, after another key or on demand | CANDIDATE |
| REJECTED | the upstream accepts it, while no key is ACTIVE or as the source key | ACTIVE |
| REJECTED | another key is ACTIVE [1] | unknown |

[1] Or when newer keys exceed MOST_UNLISTED. A key of the latest reading always stays known.
[2] If the 401 turns out to concern the request alone, the source key becomes CANDIDATE again.
[3] `doubts.py` has the states between: one target alone never takes a working key from the others.

A key that is not REJECTED is *usable*. The keyring is in one state:

| the keyring is | when | it becomes |
|---|---|---|
| SERVING: a key is usable | the upstream rejects the last usable key | HOLDING, or EXHAUSTED [4] |
| HOLDING: requests wait; one at a time probes | a key is accepted, or a reading has a new source key | SERVING |
| HOLDING | the hold period ends | EXHAUSTED |
| EXHAUSTED: requests use a rejected key | a key is accepted, or a reading has a new source key | SERVING |

[4] EXHAUSTED if no known key has ever worked. The same holds if a hold period ended less than REARM_S ago, and the
source has brought no new key since.

A request tries each key once. Then its latest 401 is kept while the preferred key is doubted (`Ruling.WAIT`). If
the upstream accepts another request with that key meanwhile, the caller gets the 401. If the key is REJECTED, the
request waits like all others. A request whose 401 was not kept is sent once more with the key (a *repeat*). Then
the caller gets the response, and a rejection of the repeat does not count against the key.

The order of events decides which evidence counts. An acceptance outweighs an earlier rejection only if its request
chose the key after that rejection. A rejection does not count if its request chose the key before an accepted one.

Instants are seconds of one monotonic clock. Ages are on the wall clock, as sources tell them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.keys.evidence import Evidence
from nanonets_proxy.core.keys.hold_period import PROBE_S
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
    Purpose,
    Ruling,
)
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy
from nanonets_proxy.core.keys.known_keys import KnownKeys

# In Python 3.11 a lookup of an enum member on its class costs a function call.
_ACTIVE = KeyState.ACTIVE
_ORDINARY, _CANDIDATE_PROBE, _REJECTED_PROBE, _REPEAT, _LAST_RESORT = Purpose
_ACCEPTED, _REJECTED = KeyVerdict.ACCEPTED, KeyVerdict.REJECTED
_NO_EVENTS: Final[Sequence[KeyEvent]] = ()


@dataclass(slots=True)
class Keyring:
    """Call `read` first. While `needs_reading`, the key manager must call `read` or `reading_failed`."""

    policy: KeyringPolicy
    known: KnownKeys = field(init=False)
    _evidence: Evidence = field(init=False)
    _seq: int = 0
    """Counts the events whose order decides: choices, and settlements that may change a state."""

    def __post_init__(self) -> None:
        self.known = KnownKeys(self.policy.grace_s)
        self._evidence = Evidence(self.known, self.policy.hold_s)

    @property
    def needs_reading(self) -> bool:
        return self._evidence.needs_reading

    def change_policy(self, policy: KeyringPolicy) -> None:
        """Applies another policy: to the next hold period, and to the keys that are replaced from now on."""
        self.policy = policy
        self.known.grace_s = policy.grace_s
        self._evidence.hold_s = policy.hold_s

    # --- readings of the source ---------------------------------------------------------------

    def read(self, found: Sequence[FoundKey], now: float, *, on_demand: bool = False) -> list[KeyEvent]:
        """Applies a reading: at least one key, the newest first.

        `on_demand`: a rejected source key becomes a candidate again.
        """
        self._evidence.needs_reading = False
        known = self.known
        before = known.reading[0] if known.reading else None
        known.take_reading(found, now)
        source_key = known.source_key
        is_new = source_key is not before
        for record in known.records:
            if record.state is KeyState.CANDIDATE and record is not source_key:
                known.replace(record, now)
        gets_chance = source_key.state is KeyState.REJECTED and (is_new or on_demand)
        if source_key.state is KeyState.PREVIOUS or gets_chance:
            source_key.state, source_key.doubt = KeyState.CANDIDATE, None
        known.refresh(now)
        if not is_new:
            return self._evidence.tick(now)
        self._evidence.pace.restart()
        self._evidence.hold.is_armed = True
        self._evidence.hold.probe_until_s = -math.inf
        found_events = [KeyEvent(KeyEventKind.CANDIDATE_FOUND, source_key)]
        return [*(found_events if source_key.state is KeyState.CANDIDATE else []), *self._evidence.tick(now)]

    def reading_failed(self) -> None:
        """Notes that the reading failed; the known keys stay."""
        self._evidence.needs_reading = False

    def state(self, now: float) -> KeyringState:
        """Returns the state of the whole keyring."""
        if self.known.usable:
            return KeyringState.SERVING
        return KeyringState.HOLDING if self._evidence.is_holding(now) else KeyringState.EXHAUSTED

    def is_waiting(self, now: float) -> bool:
        """Returns whether a new key would help a request that waits."""
        return self._evidence.is_waiting(now)

    def tick(self, now: float) -> list[KeyEvent]:
        """Returns the events that are due because time has passed."""
        return self._evidence.tick(now)

    def next_tick_s(self, now: float) -> float:
        """Returns the next instant at which `tick` is due for a request whose 401 is kept."""
        return self._evidence.next_tick_s(now)

    # --- requests -----------------------------------------------------------------------------

    def has_usable_key(self) -> bool:
        """Returns whether at least one key is usable, so no request must wait."""
        return bool(self.known.usable)

    def wait_until_s(self, history: KeyHistory, now: float) -> float | None:
        """Returns the instant at which a waiting request must ask again; None if the request need not wait."""
        if self.known.usable or not self._evidence.is_holding(now):
            return None
        hold = self._evidence.hold
        return hold.wait_until_s(self.known.records, history, now, needs_reading=self.needs_reading)

    def choose_fast(self) -> KeyUse | None:
        """Returns a use of the active key if that is the only choice; None if `choose` must decide.

        Only for a request that the upstream has rejected with no key.
        """
        if (record := self.known.sole_choice) is None:
            return None
        self._seq += 1
        use = KeyUse()
        use.record, use.purpose, use.chosen_seq = record, _ORDINARY, self._seq
        return use

    def choose(self, history: KeyHistory, now: float, *, may_wait: bool = True) -> KeyUse | None:
        """Returns a use of the key to send the request with; None if the request must wait."""
        if now >= self.known.next_expiry_s:
            self.known.refresh(now)
        usable = self.known.usable
        untried = [record for record in usable if history.is_untried(record)] if history.rejections else usable
        if untried:
            return self._choose_untried(untried, history, now)
        if usable:
            record = usable[0]
            was_accepted_since = record.accepted_seq > history.last_rejection_seq(record)
            return self._use(record, _REPEAT if was_accepted_since else _ORDINARY)
        record = self._evidence.hold.next_to_probe(self.known.records)
        if not (may_wait and self._evidence.is_holding(now)):
            return self._use(record, _LAST_RESORT)
        if history.may_probe:
            history.may_probe = False
            self._evidence.hold.note_probe(record)
            return self._use(record, _REJECTED_PROBE)
        return None

    def choose_for_probe(self, now: float) -> KeyUse | None:
        """Returns a use for the key manager's own probe; None before `KnownKeys.next_probe_s`."""
        if now < self.known.next_probe_s(requests_probe=self.policy.requests_probe):
            return None
        if self.known.doubt is not None:
            self.known.doubt.note_probe(now)
        return self._use(self.known.usable[0], _CANDIDATE_PROBE)

    def accept_fast(self, use: KeyUse) -> bool:
        """Ends a use whose key was accepted, if that changes no state. Returns False if `settle` must decide."""
        record = use.record
        if use.purpose is not _ORDINARY or record.state is not _ACTIVE or record.doubt is not None:
            return False
        if use.chosen_seq > record.accepted_seq:
            record.accepted_seq = use.chosen_seq
        return True

    def settle(
        self, use: KeyUse, verdict: KeyVerdict, now: float, history: KeyHistory | None = None
    ) -> Sequence[KeyEvent]:
        """Ends a use, and notes a rejection in the `history` of its request."""
        if verdict is _ACCEPTED and self.accept_fast(use):
            return _NO_EVENTS
        self._seq += 1
        if history is not None and verdict is _REJECTED:
            history.rejections = (*history.rejections, (use.record, self._seq))
        if use.purpose in (_CANDIDATE_PROBE, _REJECTED_PROBE):
            self._evidence.hold.probe_until_s = -math.inf
        if use.record in self.known.records and verdict is _ACCEPTED:
            return self._evidence.accept(use, now)
        if use.record in self.known.records and verdict is _REJECTED:
            return self._evidence.reject(use, history, self._seq, now)
        return _NO_EVENTS

    def rule(self, use: KeyUse, history: KeyHistory, now: float) -> Ruling:
        """Returns what happens after a 401 of `use`, which was its request's latest one.

        In a hold period the request waits for a key, and its 401 is dropped. The 401 is kept if only a pending
        reading prolongs the hold period.
        """
        if self._worth_trying(history, now):
            return Ruling.SEND_AGAIN
        if use.purpose is _LAST_RESORT:
            return Ruling.RELAY
        if not self.known.usable:
            if not self._evidence.is_holding(now):
                return Ruling.RELAY
            return Ruling.WAIT if now >= self._evidence.hold.until_s else Ruling.SEND_AGAIN
        first = self.known.usable[0]
        concerns_request = (
            use.purpose is _REPEAT
            or first.accepted_seq > history.last_rejection_seq(first)
            or self._evidence.unauthorized.knows(history.target, now)
        )
        return Ruling.RELAY if concerns_request or now >= self._evidence.doubt_end_s(first) else Ruling.WAIT

    # --- internals ----------------------------------------------------------------------------

    def _worth_trying(self, history: KeyHistory, now: float) -> list[KeyRecord]:
        """Returns the usable keys that may serve a rejected request, the preferred first.

        A previous key is left out if the upstream has just rejected a request of the same target with it.
        """
        is_known = self._evidence.unauthorized.knows(history.target, now)
        return [
            record
            for record in self.known.usable
            if history.is_untried(record)
            and (
                record.state is not KeyState.PREVIOUS
                or record is self.known.usable[0]
                or not (is_known or (record.doubt and history.target in record.doubt.first_rejections))
            )
        ]

    def _choose_untried(self, untried: Sequence[KeyRecord], history: KeyHistory, now: float) -> KeyUse:
        first = untried[0]
        if first.state is not KeyState.CANDIDATE:
            return self._use(first, _ORDINARY)
        may_probe = (
            history.may_test_candidate and self.policy.requests_probe and now >= self._evidence.hold.probe_until_s
        )
        if len(untried) > 1 and not may_probe:
            return self._use(untried[1], _ORDINARY)
        self._evidence.hold.probe_until_s = now + PROBE_S
        return self._use(first, _CANDIDATE_PROBE)

    def _use(self, record: KeyRecord, purpose: Purpose) -> KeyUse:
        self._seq += 1
        use = KeyUse()
        use.record, use.purpose, use.chosen_seq = record, purpose, self._seq
        return use
