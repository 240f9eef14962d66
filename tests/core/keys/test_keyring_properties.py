"""Invariants of the keyring, whatever source, upstream and callers do, in whatever order.

The state machine plays the key manager, a source whose key changes, an upstream that accepts some keys and at times
rejects a single request, and requests whose responses come late and out of order. Time is virtual.
"""

import math
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanonets_proxy.core.keys.api_key import ApiKey
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
from nanonets_proxy.core.keys.keyring import Keyring, KeyringPolicy

KEYS = [ApiKey.parse(f"key-{letter}", "test") for letter in "abcd"]
MOST_ATTEMPTS = 40  # of one request: far more than a correct keyring needs


class Request:
    def __init__(self, *, small: bool, forbidden: bool) -> None:
        self.history = KeyHistory(may_test_candidate=small)
        self.forbidden = forbidden
        """The upstream rejects this request with every key."""
        self.attempts = 0


class TheKeyring(RuleBasedStateMachine):
    @initialize(
        hold_s=st.sampled_from([0.0, 5.0]), grace_s=st.sampled_from([0.0, 1.0, 900.0]), requests_probe=st.booleans()
    )
    def start(self, hold_s: float, grace_s: float, requests_probe: bool) -> None:
        self.now = 100.0
        self.source = [KEYS[0]]
        self.accepted = {0}
        self.ring = Keyring(KeyringPolicy(hold_s=hold_s, grace_s=grace_s, requests_probe=requests_probe))
        self.sent: list[tuple[Request, KeyUse, KeyVerdict]] = []
        self.waiting: list[Request] = []
        self.activations = 0
        self.disturbances = 1
        self.read(on_demand=False)

    def note(self, events: Sequence[KeyEvent]) -> None:
        for event in events:
            if event.kind is KeyEventKind.ACTIVATED:
                self.activations += 1
                assert event.record.state is KeyState.ACTIVE

    # --- the source ---------------------------------------------------------------------------

    @rule(keys=st.lists(st.sampled_from(range(4)), min_size=1, max_size=2, unique=True))
    def the_source_changes(self, keys: list[int]) -> None:
        self.source = [KEYS[number] for number in keys]

    @rule(on_demand=st.booleans())
    def read(self, on_demand: bool) -> None:
        active = [r for r in self.ring.known.records if r.state is KeyState.ACTIVE]
        self.note(self.ring.read([FoundKey(key, 0.0) for key in self.source], self.now, on_demand=on_demand))
        self.disturbances += 1
        assert not self.ring.needs_reading
        assert all(r.state is KeyState.ACTIVE for r in active), "a reading never drops a working key"
        assert self.ring.known.source_key.key == self.source[0]
        assert len(self.ring.known.records) <= 2 * len(KEYS)

    @rule()
    def a_reading_fails(self) -> None:
        before = [(r, r.state) for r in self.ring.known.records]
        self.ring.reading_failed()
        assert [(r, r.state) for r in self.ring.known.records] == before

    # --- the upstream -------------------------------------------------------------------------

    @rule(number=st.sampled_from(range(4)))
    def a_key_is_made_or_revoked(self, number: int) -> None:
        self.accepted ^= {number}
        self.disturbances += 1

    # --- requests -----------------------------------------------------------------------------

    @rule(small=st.booleans(), forbidden=st.sampled_from([False, False, False, True]))
    def arrive(self, small: bool, forbidden: bool) -> None:
        self.disturbances += forbidden
        self.waiting.append(Request(small=small, forbidden=forbidden))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), may_wait=st.sampled_from([True, True, False]))
    def send(self, data: st.DataObject, may_wait: bool) -> None:
        request = data.draw(st.sampled_from(self.waiting))
        usable = self.usable()
        hold_s = self.ring.wait_until_s(request.history, self.now)
        assert hold_s is None or not self.ring.has_usable_key()
        fast = self.ring.choose_fast()
        use = self.ring.choose(request.history, self.now, may_wait=may_wait)
        if fast is not None and not request.history.rejections:
            assert use is not None
            assert (use.record, use.purpose) == (fast.record, fast.purpose)
        if use is None:
            assert may_wait
            assert not usable, "never without a key while one is usable"
            assert hold_s is not None
            assert self.now < hold_s < math.inf
            return
        assert hold_s is None or not may_wait
        if use.record.state is KeyState.REJECTED:
            assert not usable, "never a rejected key while another is usable"
        untried = [r for r in usable if request.history.is_untried(r)]
        if use.purpose in (Purpose.ORDINARY, Purpose.CANDIDATE_PROBE):
            assert use.record in untried or not untried
        if use.purpose is Purpose.CANDIDATE_PROBE and len(untried) > 1:
            assert request.history.may_test_candidate
            assert self.ring.policy.requests_probe
        request.attempts += 1
        assert request.attempts < MOST_ATTEMPTS
        self.waiting.remove(request)
        # The upstream checks the key at once; its response comes at any later time.
        good = any(use.record.key == KEYS[n] for n in self.accepted) and not request.forbidden
        self.sent.append((request, use, KeyVerdict.ACCEPTED if good else KeyVerdict.REJECTED))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), lost=st.sampled_from([False, False, False, True]))
    def a_response_comes(self, data: st.DataObject, lost: bool) -> None:
        request, use, verdict = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        verdict = KeyVerdict.UNKNOWN if lost else verdict
        self.note(self.ring.settle(use, verdict, self.now, request.history))
        if verdict is not KeyVerdict.REJECTED:
            return
        if self.ring.is_final(use, request.history, self.now):
            assert not any(request.history.is_untried(r) for r in self.usable()), "an untried key was left"
            assert use.purpose in (Purpose.LAST_RESORT, Purpose.REPEAT)
        else:
            self.waiting.append(request)

    @rule(verdict=st.sampled_from(KeyVerdict))
    def probe(self, verdict: KeyVerdict) -> None:
        use = self.ring.choose_candidate()
        if use is not None:
            self.note(self.ring.settle(use, verdict, self.now))
            self.disturbances += 1

    @rule(passed_s=st.sampled_from([0.0, 0.01, 1.0, 5.0, 100.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    # --- always -------------------------------------------------------------------------------

    def usable(self) -> list[KeyRecord]:
        return [r for r in self.ring.known.records if r.state is not KeyState.REJECTED]

    @invariant()
    def at_most_one_key_is_active_and_one_is_a_candidate(self) -> None:
        for state in (KeyState.ACTIVE, KeyState.CANDIDATE):
            assert sum(r.state is state for r in self.ring.known.records) <= 1

    @invariant()
    def a_key_that_was_accepted_after_its_rejection_is_not_rejected(self) -> None:
        for record in self.ring.known.records:
            if record.state is KeyState.REJECTED and record.accepted_seq > record.rejected_seq:
                raise AssertionError("accepted, and yet rejected")

    @invariant()
    def the_keyring_serves_while_a_key_is_usable(self) -> None:
        serves = self.ring.state(self.now) is KeyringState.SERVING
        assert serves == bool(self.usable())
        assert serves != (KeyWarning.NO_KEY_ACCEPTED in self.ring.known.warnings(wall_now_s=0.0, max_age_s=0.0))
        assert self.ring.known.serving_key in self.ring.known.records
        assert self.ring.known.source_key in self.ring.known.records

    @invariant()
    def the_active_key_does_not_flap(self) -> None:
        # A disturbance is a reading, a key made or revoked, or a request that alone is rejected. Each may change
        # the active key once for each key at most.
        assert self.activations <= len(KEYS) * self.disturbances


TheKeyring.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestTheKeyring = TheKeyring.TestCase


class CalmWorld(RuleBasedStateMachine):
    """Keys rotate in the right order: a new key works before the old one is revoked. No caller gets a 401."""

    @initialize(requests_probe=st.booleans())
    def start(self, requests_probe: bool) -> None:
        self.now = 0.0
        self.number = 0
        self.current = self.key(0)
        self.working = [self.current]
        self.ring = Keyring(KeyringPolicy(requests_probe=requests_probe))
        self.ring.read([FoundKey(self.current, 0.0)], self.now)

    def key(self, number: int) -> ApiKey:
        return ApiKey.parse(f"key-{number}", "test")

    @rule()
    def rotate(self) -> None:
        self.number += 1
        self.current = self.key(self.number)
        self.working = [self.current, *self.working]
        self.ring.read([FoundKey(self.current, 0.0)], self.now)

    @precondition(lambda self: self.ring.known.serving_key.key == self.current)
    @rule()
    def the_source_holds_a_wrong_key_for_a_while(self) -> None:
        self.ring.read([FoundKey(ApiKey.parse("wrong", "test"), 0.0)], self.now)
        self.get()
        if self.ring.policy.requests_probe:
            assert KeyWarning.CANDIDATE_REJECTED in self.ring.known.warnings(wall_now_s=0.0, max_age_s=0.0)
        self.ring.read([FoundKey(self.current, 0.0)], self.now)

    @rule()
    def the_old_keys_are_revoked(self) -> None:
        self.working = [self.current]

    @rule(passed_s=st.sampled_from([0.01, 10.0, 1000.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    @rule(small=st.booleans())
    def get(self, small: bool = True) -> None:
        history = KeyHistory(may_test_candidate=small)
        for _ in range(5):
            assert self.ring.wait_until_s(history, self.now) is None
            use = self.ring.choose(history, self.now)
            assert use is not None
            self.now += 0.01
            good = any(use.record.key == key for key in self.working)
            self.ring.settle(use, KeyVerdict.ACCEPTED if good else KeyVerdict.REJECTED, self.now, history)
            if good:
                return
            assert not self.ring.is_final(use, history, self.now)
        raise AssertionError("not served")


CalmWorld.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCalmWorld = CalmWorld.TestCase
