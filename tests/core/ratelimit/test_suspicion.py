"""Requests that are refused alone, and quotas that are used up for long, in virtual time."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.exact_state import take_exact
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import LimitClosed, LimitLearned, QuotaUsedUp
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Ticket, TicketState

LARGE = "large"


class Scene:
    """A gate and an upstream that refuses the kind LARGE for ever, with a hint of 10 s."""

    def __init__(self, *static_limits: str, max_wait_s: float = math.inf) -> None:
        limits = StaticLimits(tuple(map(StaticLimit.parse, static_limits)))
        policy = GatePolicy(
            max_in_flight=50, max_waiting=1000, max_waiting_per_lane=20, static_limits=limits, max_wait_s=max_wait_s
        )
        self.gate = Gate(policy, lambda: 0.0)
        self.now = 1000.0
        self.expired: list[Expiry] = []
        self.wake_at_s: float | None = None

    def ask(self, kind: str = "", lane: str = "a", wait_s: float = math.inf) -> Ticket:
        ticket = Ticket("account", self.now + wait_s, lane, kind=kind)
        assert self.gate.enqueue(ticket, self.now) is None
        return ticket

    def poll(self) -> list[Ticket]:
        verdicts = self.gate.poll(self.now)
        self.expired += verdicts.expired
        self.wake_at_s = verdicts.wake_at_s
        return list(verdicts.granted)

    def refuse(self, permit: Ticket, hint_s: float | None = 10.0, *, quota: bool = False) -> None:
        self.gate.settle(permit, Outcome.THROTTLED, self.now, hint_s, quota_used_up=quota)

    def serve(self, permit: Ticket) -> None:
        self.gate.settle(permit, Outcome.SERVED, self.now)

    def run(self, seconds: float) -> int:
        """Lets the upstream decide on all grants. Returns the number of served requests."""
        served, end_s = 0, self.now + seconds
        while True:
            for permit in self.poll():
                if permit.kind == LARGE:
                    self.refuse(permit)
                    if self.gate.enqueue(permit, self.now) is not None:
                        return -1
                else:
                    self.serve(permit)
                    served += 1
            if not self.gate.needs_poll:
                if self.wake_at_s is None or self.wake_at_s > end_s:
                    self.now = end_s
                    return served
                self.now = self.wake_at_s


def test_a_request_refused_for_ever_ends_after_three_refusals_and_holds_up_no_other() -> None:
    scene = Scene()
    large = scene.ask(LARGE)
    for _ in range(10):
        scene.ask()
    scene.run(11)
    for _ in range(100):
        scene.ask()
        scene.run(1)
    (expiry,) = scene.expired
    assert (expiry.ticket, expiry.reason) == (large, Reason.REFUSED_ALONE)
    assert large.refusals <= 4
    assert scene.gate.waiting == 0
    assert not math.isfinite(scene.gate.scopes.by_name["account"].limit.estimate.window.count)


@pytest.mark.parametrize("other_is_refused", [False, True])
def test_a_lesson_is_undone_only_if_each_refusal_was_its_tickets_own(other_is_refused: bool) -> None:
    scene = Scene()
    large, other, *served = [scene.ask(LARGE), *(scene.ask(lane="b") for _ in range(7))]
    assert len(scene.poll()) == 8
    scene.refuse(large)
    if other_is_refused:
        scene.refuse(other)
    else:
        scene.serve(other)
    for ticket in served:
        scene.serve(ticket)
    assert scene.gate.enqueue(large, scene.now) is None
    scene.ask(lane="c")
    assert scene.poll() == []
    scene.now += 10
    assert scene.poll() == [large]
    assert scene.gate.scopes.by_name["account"].limit.estimate.known
    scene.refuse(large)
    assert scene.gate.enqueue(large, scene.now) is None
    scene.serve(*scene.poll())
    assert large.own_refusals == 1
    assert scene.gate.scopes.by_name["account"].limit.estimate.known == other_is_refused


def test_a_refusal_of_an_earlier_request_is_no_lesson_once_its_closure_has_no_waiting_request() -> None:
    scene = Scene()
    first, second = scene.ask(), scene.ask(lane="b")
    assert len(scene.poll()) == 2
    scene.refuse(first)
    assert scene.gate.enqueue(first, scene.now) is None
    scene.gate.withdraw(first, scene.now)
    assert scene.poll() == []
    assert scene.gate.scopes.by_name["account"].suspicion is None
    scene.refuse(second)
    suspicion = scene.gate.scopes.by_name["account"].suspicion
    assert suspicion is not None
    assert suspicion._lessons == []


def test_a_served_request_that_no_closure_refused_confirms_none() -> None:
    scene = Scene()
    first, second, third = (scene.ask() for _ in range(3))
    assert len(scene.poll()) == 3
    scene.refuse(first)
    scene.now += 0.01
    scene.refuse(second)
    third.refusals = 1
    suspicion = scene.gate.scopes.by_name["account"].suspicion
    assert suspicion is not None
    scene.serve(third)
    assert [lesson.refused for lesson in suspicion._lessons] == [[first, second]]


def test_only_a_limit_probe_is_an_unconfirmed_probe() -> None:
    limit = Limit(GatePolicy(max_in_flight=50, max_waiting=50), lambda: 0.0)
    limit.grants.note_grant(limit.grant(GrantKind.COUNT_PROBE, 0.0), GrantKind.COUNT_PROBE, 0.0)
    assert [limit.grants.is_unconfirmed_probe(serial) for serial in (1, 2)] == [True, False]
    limit.grants.note_grant(2, GrantKind.PERIOD_START, 0.0)
    assert not limit.grants.is_unconfirmed_probe(2)


def test_a_lone_request_is_tried_until_its_deadline() -> None:
    scene = Scene()
    ticket = scene.ask(LARGE, wait_s=100.0)
    assert scene.run(101) == -1  # rejected: its next turn would come too late
    assert ticket.refusals >= 4
    assert ticket.own_refusals == 0


def test_a_lone_request_with_short_hints_is_tried_less_and_less_often() -> None:
    """The limit is known from earlier requests. Each hint says one second, and none is true."""
    gate, now = Gate(GatePolicy(max_in_flight=9, max_waiting=9), lambda: 0.0), 1000.0
    for _ in range(3):
        served = Ticket("account", math.inf)
        gate.enqueue(served, now)
        gate.poll(now)
        gate.settle(served, Outcome.SERVED, now + 0.05)
        now += 1.0
    ticket, deadline_s = Ticket("account", now + 270.0), now + 270.0
    rejection = gate.enqueue(ticket, now)
    while rejection is None:
        verdicts = gate.poll(now)
        if ticket in verdicts.granted:
            now += 0.04
            gate.settle(ticket, Outcome.THROTTLED, now, 1.0)
            rejection = gate.enqueue(ticket, now)
        else:
            assert verdicts.wake_at_s is not None
            now = verdicts.wake_at_s
    assert ticket.refusals <= 30
    assert deadline_s - 60.0 <= now <= deadline_s


def doubtful(scene: Scene) -> Ticket:
    """Returns a ticket whose refusal, as the probe, is in doubt."""
    ticket = scene.ask(LARGE)
    (permit,) = scene.poll()
    scene.refuse(permit)
    assert scene.gate.enqueue(permit, scene.now) is None
    scene.poll()
    scene.now += 10
    (probe,) = scene.poll()
    scene.refuse(probe)
    assert scene.gate.enqueue(probe, scene.now) is None
    assert scene.poll() == []
    return ticket


def test_a_substitute_that_fails_is_replaced() -> None:
    scene = Scene()
    ticket = doubtful(scene)
    for outcome in (Outcome.FAILED, Outcome.UNUSED, Outcome.KEY_REJECTED):
        other = scene.ask(lane="b")
        assert scene.poll() == [other]
        scene.gate.settle(other, outcome, scene.now)
    assert ticket.own_refusals == 0
    substitute = scene.ask(lane="b")
    scene.serve(*scene.poll())
    assert (substitute.state, ticket.own_refusals) == (TicketState.ENDED, 1)


def test_after_seven_requests_of_the_same_caller_and_kind_the_eighth_is_the_substitute() -> None:
    """They may be refused for the same reason, but another one may never come."""
    scene = Scene()
    ticket = doubtful(scene)
    for accepted in range(1, 9):
        scene.ask(ticket.kind)
        scene.serve(*scene.poll())
        assert ticket.own_refusals == (accepted == 8)


def test_a_substitute_without_a_response_is_accepted_by_timeout() -> None:
    scene = Scene()
    ticket = doubtful(scene)
    scene.ask(lane="b")
    scene.poll()
    scene.ask(lane="b")
    assert scene.poll() == []
    assert scene.wake_at_s is not None
    scene.now = scene.wake_at_s
    assert len(scene.poll()) == 1
    assert ticket.own_refusals == 1


def test_a_refused_substitute_closes_the_scope() -> None:
    scene = Scene()
    ticket = doubtful(scene)
    scene.ask(lane="b")
    (substitute,) = scene.poll()
    scene.refuse(substitute, 30.0)
    assert scene.poll() == []
    assert scene.gate.scopes.closed(scene.now) == {"account": scene.now + 30}
    assert ticket.own_refusals == 0


def test_a_held_ticket_can_be_withdrawn_and_counts_against_its_lane() -> None:
    scene = Scene()
    ticket = doubtful(scene)
    state = scene.gate.scopes.by_name["account"]
    assert (state.waiting, state.queue.waiting, state.waiting_in("a")) == (1, 0, 1)
    scene.gate.note_sleep(5.0)
    scene.gate.withdraw(ticket, scene.now)
    assert (scene.gate.waiting, state.waiting, state.waiting_in("a")) == (0, 0, 0)
    scene.now += 100
    assert scene.poll() == []


def test_a_request_sent_later_and_accepted_reopens_a_scope_with_a_long_hint() -> None:
    scene = Scene()
    first, *_ = [scene.ask() for _ in range(3)]
    permits = scene.poll()
    scene.now += 0.05
    scene.ask(lane="b")
    permits += scene.poll()
    scene.now += 0.05
    scene.refuse(first, 60.0)
    assert scene.gate.enqueue(first, scene.now) is None
    scene.ask(lane="c")
    assert scene.poll() == []
    scene.serve(permits[-1])
    (probe,) = scene.poll()
    assert probe.lane == "c"
    scene.serve(probe)
    assert first.own_refusals == 1


def test_an_odd_hint_is_in_doubt() -> None:
    scene = Scene("account 20/10s")
    permit = scene.ask()
    scene.poll()
    scene.refuse(permit, 60.0)
    assert permit.doubts == 1
    assert scene.gate.scopes.closed(scene.now) == {}


# --- long quotas --------------------------------------------------------------------------------


def exhausted() -> Scene:
    scene = Scene(max_wait_s=300.0)
    for _ in range(2):
        permit = scene.ask(wait_s=300.0)
        assert scene.poll() == [permit]
        scene.refuse(permit, None, quota=True)
        rejection = scene.gate.enqueue(permit, scene.now)
        assert rejection is not None
        assert rejection.reason is Reason.QUOTA_USED_UP
    return scene


def test_a_used_up_quota_ends_all_waiting_tickets_and_rejects_new_ones() -> None:
    scene = Scene("account 20/10s", max_wait_s=300.0)
    first = scene.ask()
    scene.poll()
    scene.refuse(first, 3600.0)
    held = [scene.ask() for _ in range(3)]
    (substitute,) = scene.poll()
    scene.refuse(substitute, 3600.0)
    scene.poll()
    assert {expiry.ticket for expiry in scene.expired} == set(held) - {substitute}
    assert all(expiry.reason is Reason.QUOTA_USED_UP for expiry in scene.expired)
    rejection = scene.gate.enqueue(Ticket("account", math.inf), scene.now)
    assert rejection is not None
    assert rejection.reason is Reason.QUOTA_USED_UP
    assert rejection.retry_after_s == 3600
    assert scene.gate.scopes.closed(scene.now) == {"account": scene.now + 3600}
    scene.gate.note_sleep(600)
    assert scene.gate.scopes.closed(scene.now) == {"account": scene.now + 3000}


def test_new_requests_probe_a_used_up_quota_at_growing_intervals_until_it_is_over() -> None:
    scene = exhausted()
    for distance_s in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        scene.now += distance_s - 1
        assert scene.gate.enqueue(Ticket("account", math.inf), scene.now) is not None
        scene.now += 1
        probe = scene.ask()
        other = scene.ask()
        assert scene.poll() == [probe]
        assert scene.expired[-1].ticket is other
        scene.refuse(probe, None, quota=True)
        assert scene.gate.enqueue(probe, scene.now) is not None
        scene.poll()
    scene.now += 3600
    probe = scene.ask()
    assert scene.poll() == [probe]
    scene.serve(probe)
    scene.ask()
    assert len(scene.poll()) == 1


@pytest.mark.parametrize("hint_s", [None, 7200.0])
def test_requests_that_were_in_flight_together_do_not_delay_the_test_of_a_quota(hint_s: float | None) -> None:
    scene = Scene(max_wait_s=300.0)
    permits = [scene.ask() for _ in range(7)]
    assert scene.poll() == permits
    for permit in permits[:6]:
        scene.refuse(permit, hint_s, quota=True)
    scene.poll()
    substitute = scene.ask()
    if scene.poll() == [substitute]:
        scene.refuse(substitute, hint_s, quota=True)
    scene.now += 10
    scene.refuse(permits[6], hint_s, quota=True)
    scene.poll()
    scene.now += 49
    assert scene.gate.enqueue(Ticket("account", math.inf), scene.now) is not None
    scene.now += 1
    assert scene.gate.enqueue(Ticket("account", math.inf), scene.now) is None


def test_an_ordinary_refusal_ends_a_used_up_quota() -> None:
    scene = exhausted()
    scene.now += 60
    probe = scene.ask()
    scene.poll()
    scene.refuse(probe, 5.0)
    assert scene.gate.enqueue(probe, scene.now) is None


def test_a_quota_that_concerns_one_request_closes_nothing() -> None:
    scene = Scene(max_wait_s=300.0)
    first = scene.ask()
    scene.poll()
    scene.refuse(first, None, quota=True)
    scene.ask()
    scene.serve(*scene.poll())
    assert scene.gate.scopes.closed(scene.now) == {}
    scene.ask()
    assert len(scene.poll()) == 1


# --- news ---------------------------------------------------------------------------------------


def test_a_closure_is_reported_once_with_its_number_of_refusals() -> None:
    scene = Scene()
    permits = [scene.ask() for _ in range(8)]
    assert len(scene.poll()) == 8
    for permit in permits[:2]:
        scene.serve(permit)
    for permit, hint_s in zip(permits[2:], (9.5, None, 8.0, 9.0, 1.0, 2.0), strict=True):
        scene.refuse(permit, hint_s)
    scene.poll()
    assert scene.gate.news.take() == []
    scene.now += 20
    scene.poll()
    closed, learned = scene.gate.news.take()
    assert closed == LimitClosed("account", 6, 20.0, 9.5, quota_used_up=False)
    assert isinstance(learned, LimitLearned)
    assert (learned.before.count, learned.after.count) == (math.inf, 2)
    assert scene.gate.news.take() == []


def test_a_used_up_quota_is_reported_once_at_its_start_and_once_at_its_end() -> None:
    scene = exhausted()
    scene.poll()
    assert scene.gate.news.take() == [QuotaUsedUp("account", None, 60.0)]
    for distance_s in (60, 120, 240):
        scene.now += distance_s
        probe = scene.ask()
        assert scene.poll() == [probe]
        scene.refuse(probe, None, quota=True)
        scene.poll()
    assert scene.gate.news.take() == []
    scene.now += 480
    scene.poll()
    scene.ask()
    scene.serve(*scene.poll())
    assert scene.wake_at_s is not None
    assert scene.wake_at_s <= scene.now + 60
    assert scene.gate.needs_poll
    scene.poll()
    assert scene.gate.news.take() == [LimitClosed("account", 4, 900.0, None, quota_used_up=True)]


def test_after_a_restart_the_end_of_a_used_up_quota_is_news_at_once() -> None:
    scene = exhausted()
    scene.poll()
    document = take_exact(scene.gate.scopes)
    gate = Gate(scene.gate.policy, lambda: 0.5)
    assert gate.scopes.restore_exact(document, scene.now)
    scene.now += 60
    ticket = Ticket("account", scene.now + 10.0, "caller", kind="/x")
    assert gate.try_admit(ticket, scene.now)
    gate.settle(ticket, Outcome.SERVED, scene.now)
    assert gate.needs_poll
    gate.poll(scene.now)
    assert gate.news.take() == [LimitClosed("account", 1, 60.0, None, quota_used_up=True)]


def test_a_used_up_quota_that_becomes_an_ordinary_closure_ends_with_it() -> None:
    scene = exhausted()
    scene.poll()
    assert scene.gate.news.take() == [QuotaUsedUp("account", None, 60.0)]
    scene.now += 60
    scene.ask()
    (probe,) = scene.poll()
    scene.refuse(probe, 5.0)
    scene.poll()
    scene.now += 5
    scene.poll()
    assert scene.gate.news.take()[0] == LimitClosed("account", 2, 65.0, 5.0, quota_used_up=True)
    scene.ask()
    (probe,) = scene.poll()
    scene.refuse(probe, 10.0)
    scene.now += 10
    scene.poll()
    assert [news.quota_used_up for news in scene.gate.news.take() if isinstance(news, LimitClosed)] == [False]


def test_a_static_limit_is_no_news() -> None:
    scene = Scene("account 2/minute")
    scene.ask()
    scene.poll()
    assert scene.gate.news.take() == []


@pytest.mark.parametrize("count", [1, 30])
def test_the_queue_finds_another_ticket_behind_many_of_the_same_kind(count: int) -> None:
    scene = Scene()
    doubtful(scene)
    for number in range(count):
        scene.ask(LARGE, lane=f"x{number}")
    other = scene.ask(lane="y")
    assert scene.poll() == [other]
