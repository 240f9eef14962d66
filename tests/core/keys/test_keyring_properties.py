"""Invariants of the keyring, for any behaviour of source, upstream and callers, in any order.

The state machine plays the key manager, a source whose key changes, an upstream that accepts some keys and at times
rejects a single request, and requests whose responses come late and out of order. Time is virtual.
"""

import math
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.doubts import MOST_TARGETS
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
    Ruling,
)
from nanonets_proxy.core.keys.keyring import Keyring
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy

KEYS = [ApiKey.parse(f"key-{letter}", "test") for letter in "abcd"]
MOST_ATTEMPTS = 40  # of one request: far more than a correct keyring needs


class Request:
    def __init__(self, *, small: bool = True, forbidden: bool = False, target: str = "GET /") -> None:
        self.history = KeyHistory(may_test_candidate=small, target=f"{target}{'secret' * forbidden}")
        self.forbidden = forbidden
        """The upstream rejects this request with every key."""
        self.attempts = 0


class AnyEvents(RuleBasedStateMachine):
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
        self.kept: list[tuple[Request, KeyUse]] = []
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

    @rule(
        small=st.booleans(),
        forbidden=st.sampled_from([False, False, False, True]),
        sent_to=st.sampled_from(["GET /a", "GET /b", "POST /a"]),
    )
    def arrive(self, small: bool, forbidden: bool, sent_to: str) -> None:
        self.disturbances += forbidden
        self.waiting.append(Request(small=small, forbidden=forbidden, target=sent_to))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), may_wait=st.sampled_from([True, True, False]))
    def send(self, data: st.DataObject, may_wait: bool) -> None:
        request = data.draw(st.sampled_from(self.waiting))
        hold_s = self.ring.wait_until_s(request.history, self.now)
        assert hold_s is None or not self.ring.has_usable_key()
        fast = self.ring.choose_fast()
        use = self.ring.choose(request.history, self.now, may_wait=may_wait)
        usable = self.usable()  # without the previous keys whose grace time has ended
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
        self.follow_ruling(request, use)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def a_kept_401_is_ruled_on(self, data: st.DataObject) -> None:
        self.follow_ruling(*self.kept.pop(data.draw(st.integers(0, len(self.kept) - 1))))

    def follow_ruling(self, request: Request, use: KeyUse) -> None:
        self.note(self.ring.tick(self.now))
        ruling = self.ring.rule(use, request.history, self.now)
        if ruling is Ruling.SEND_AGAIN:
            self.waiting.append(request)
        elif ruling is Ruling.WAIT:
            assert self.usable() or self.ring.needs_reading, "a hold period keeps no 401"
            assert self.now < self.ring.next_tick_s(self.now) < math.inf
            self.kept.append((request, use))

    @rule(verdict=st.sampled_from(KeyVerdict))
    def probe(self, verdict: KeyVerdict) -> None:
        use = self.ring.choose_for_probe(self.now)
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
    def the_remembered_targets_are_bounded(self) -> None:
        for record in self.ring.known.records:
            assert record.doubt is None or 0 < len(record.doubt.first_rejections) <= MOST_TARGETS
            assert record.doubt is None or record.state is KeyState.REJECTED or not record.doubt.is_confirmed

    @invariant()
    def the_active_key_does_not_flap(self) -> None:
        # A disturbance is a reading, a key made or revoked, or a request that alone is rejected. Each may change
        # the active key once for each key at most.
        assert self.activations <= len(KEYS) * self.disturbances


AnyEvents.TestCase.settings = settings(max_examples=50, stateful_step_count=60)
TestAnyEvents = AnyEvents.TestCase


class OrderlyRotation(RuleBasedStateMachine):
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
        history = KeyHistory(may_test_candidate=small, target="GET /")
        for _ in range(9):
            assert self.ring.wait_until_s(history, self.now) is None
            use = self.ring.choose(history, self.now)
            assert use is not None
            self.now += 0.01
            good = any(use.record.key == key for key in self.working)
            self.ring.settle(use, KeyVerdict.ACCEPTED if good else KeyVerdict.REJECTED, self.now, history)
            if good:
                return
            assert self.ring.rule(use, history, self.now) is Ruling.SEND_AGAIN
        raise AssertionError("not served")


OrderlyRotation.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestOrderlyRotation = OrderlyRotation.TestCase


class OneForbiddenTarget(RuleBasedStateMachine):
    """The upstream accepts the key for all targets but one. That target's 401s affect no other request."""

    @initialize(hold_s=st.sampled_from([0.0, 5.0]), has_previous=st.booleans())
    def start(self, hold_s: float, has_previous: bool) -> None:
        self.now = 0.0
        self.ring = Keyring(KeyringPolicy(hold_s=hold_s))
        keys = KEYS[: 1 + has_previous]
        for key in reversed(keys):
            self.ring.read([FoundKey(key, 0.0)], self.now)
            self.settle(self.send(Request()))
        self.key = self.ring.known.serving_key
        self.has_previous = has_previous
        self.sent: list[tuple[Request, KeyUse]] = []
        self.kept: list[tuple[Request, KeyUse]] = []
        assert self.key.state is KeyState.ACTIVE

    def send(self, request: Request) -> tuple[Request, KeyUse]:
        assert self.ring.wait_until_s(request.history, self.now) is None, "no request waits before it is sent"
        fast = None if request.history.rejections else self.ring.choose_fast()
        use = fast or self.ring.choose(request.history, self.now)
        assert use is not None
        request.attempts += 1
        return request, use

    def settle(self, sent: tuple[Request, KeyUse]) -> None:
        request, use = sent
        verdict = KeyVerdict.REJECTED if request.forbidden else KeyVerdict.ACCEPTED
        events = self.ring.settle(use, verdict, self.now, request.history)
        assert all(
            event.kind in (KeyEventKind.ACTIVATED, KeyEventKind.REQUEST_REJECTED, KeyEventKind.HOLD_ENDED)
            for event in events
        ), "no alarm"
        if request.forbidden:
            self.follow_ruling(request, use)

    def follow_ruling(self, request: Request, use: KeyUse) -> None:
        ruling = self.ring.rule(use, request.history, self.now)
        if ruling is Ruling.SEND_AGAIN:
            assert self.has_previous
            assert use.record is self.key
            self.sent.append(self.send(request))
            assert request.attempts == 2
        elif ruling is Ruling.WAIT:
            self.kept.append((request, use))

    @rule(forbidden=st.booleans(), sent_to=st.sampled_from(["GET /a", "GET /b"]))
    def request(self, forbidden: bool, sent_to: str) -> None:
        self.sent.append(self.send(Request(forbidden=forbidden, target="GET /" if forbidden else sent_to)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_response_comes(self, data: st.DataObject) -> None:
        self.settle(self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1))))

    @precondition(lambda self: self.kept)
    @rule()
    def another_request_decides(self) -> None:
        self.settle(self.send(Request(target="GET /other")))
        kept, self.kept = self.kept, []
        for request, use in kept:
            assert self.ring.rule(use, request.history, self.now) is Ruling.RELAY
            assert request.attempts <= 1 + self.has_previous, "a request is sent once with each key"

    @rule()
    def read(self) -> None:
        self.ring.read([FoundKey(self.key.key, 0.0)], self.now)

    @rule(passed_s=st.sampled_from([0.01, 1.0, 10.0, 1000.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s
        self.ring.tick(self.now)
        kept, self.kept = self.kept, []
        for request, use in kept:
            self.follow_ruling(request, use)

    @invariant()
    def the_key_stays_active(self) -> None:
        assert self.key.state is KeyState.ACTIVE
        assert self.ring.state(self.now) is KeyringState.SERVING


OneForbiddenTarget.TestCase.settings = settings(max_examples=50, stateful_step_count=50)
TestOneForbiddenTarget = OneForbiddenTarget.TestCase


class Revocation(RuleBasedStateMachine):
    """The key is revoked before the new one exists, under requests of several targets. No caller gets a 401."""

    @initialize(hold_s=st.sampled_from([5.0, 20.0]), count=st.integers(1, 3))
    def start(self, hold_s: float, count: int) -> None:
        self.now, self.hold_s = 0.0, hold_s
        self.targets = [f"GET /{number}" for number in range(count)]
        self.number, self.is_revoked, self.since_s = 0, False, 0.0
        self.ring = Keyring(KeyringPolicy(hold_s=hold_s))
        self.sent: list[tuple[Request, KeyUse, KeyVerdict]] = []
        self.kept: list[tuple[Request, KeyUse]] = []
        self.held: list[Request] = []
        self.number = 0
        self.read()
        self.finish(KeyHistory(may_test_candidate=True, target=self.targets[0]))

    @property
    def key(self) -> ApiKey:
        return ApiKey.parse(f"key-{self.number}", "test")

    def read(self) -> None:
        self.ring.read([FoundKey(self.key, 0.0)], self.now)

    def finish(self, history: KeyHistory) -> None:
        use = self.ring.choose(history, self.now)
        assert use is not None
        self.ring.settle(use, self.verdict(use), self.now, history)
        assert self.verdict(use) is KeyVerdict.ACCEPTED

    def verdict(self, use: KeyUse) -> KeyVerdict:
        is_good = use.record.key == self.key and not self.is_revoked
        return KeyVerdict.ACCEPTED if is_good else KeyVerdict.REJECTED

    def send(self, request: Request) -> None:
        if self.ring.wait_until_s(request.history, self.now) is not None:
            self.held.append(request)
            return
        use = self.ring.choose(request.history, self.now)
        if use is None:
            self.held.append(request)
        else:
            self.sent.append((request, use, self.verdict(use)))

    def follow_ruling(self, request: Request, use: KeyUse) -> None:
        ruling = self.ring.rule(use, request.history, self.now)
        assert ruling is not Ruling.RELAY, "a caller gets a 401"
        if ruling is Ruling.WAIT:
            self.kept.append((request, use))
        else:
            self.send(request)

    @rule(data=st.data())
    def request(self, data: st.DataObject) -> None:
        self.send(Request(target=data.draw(st.sampled_from(self.targets))))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_response_comes(self, data: st.DataObject) -> None:
        self.respond(data.draw(st.integers(0, len(self.sent) - 1)))

    def respond(self, position: int) -> None:
        request, use, verdict = self.sent.pop(position)
        self.ring.settle(use, verdict, self.now, request.history)
        if verdict is KeyVerdict.REJECTED:
            self.follow_ruling(request, use)

    @precondition(lambda self: not self.is_revoked)
    @rule()
    def revoke(self) -> None:
        while self.sent:  # their keys were checked before
            self.respond(0)
        self.is_revoked, self.since_s = True, self.now

    @precondition(lambda self: self.is_revoked)
    @rule()
    def the_new_key_comes(self) -> None:
        self.number += 1
        self.is_revoked = False
        self.read()
        while self.sent or self.held or self.kept:
            held, self.held = self.held, []
            for request in held:
                self.send(request)
            kept, self.kept = self.kept, []
            for request, use in kept:
                self.follow_ruling(request, use)
            while self.sent:
                self.respond(0)

    @precondition(lambda self: not self.is_revoked)
    @rule()
    def much_time_passes(self) -> None:
        while self.sent:
            self.respond(0)
        self.now += 30.0
        self.ring.tick(self.now)

    @rule()
    def time_passes(self) -> None:
        if not self.is_revoked or self.now + 0.5 < self.since_s + self.hold_s:
            self.now += 0.5
        self.ring.tick(self.now)
        held, self.held = self.held, []
        for request in held:
            self.send(request)
        kept, self.kept = self.kept, []
        for request, use in kept:
            self.follow_ruling(request, use)


Revocation.TestCase.settings = settings(max_examples=50, stateful_step_count=60)
TestRevocation = Revocation.TestCase
