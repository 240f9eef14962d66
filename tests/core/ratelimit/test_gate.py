"""The gate in virtual time: which ticket is granted, rejected or expired, and when."""

import math
from collections.abc import Callable

import pytest

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.rejections import MIN_RETRY_AFTER_S
from nanonets_proxy.core.ratelimit.scope_registry import MAX_CLOSED_SCOPES_SHOWN
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Rejection, Ticket, TicketState, Verdicts
from support.gate.gate_scene import GateScene

NEVER_S = 1e9


class Shell:
    """A gate's shell whose clock moves only when the test moves it."""

    def __init__(
        self, max_in_flight: int = 100, max_waiting: int = 1000, jitter: Callable[[], float] = lambda: 0.0
    ) -> None:
        policy = GatePolicy(max_in_flight=max_in_flight, max_waiting=max_waiting, acceptance_timeout_first_s=1.0)
        self.gate = Gate(policy, jitter)
        self.now = 1000.0
        self.last = Verdicts((), (), None)

    def ask(self, count: int = 1, *, scope: str = "account", wait_s: float = NEVER_S) -> list[Ticket]:
        tickets = [Ticket(scope, self.now + wait_s) for _ in range(count)]
        for ticket in tickets:
            assert self.gate.enqueue(ticket, self.now) is None
        return tickets

    def poll(self, *, after_s: float = 0.0) -> list[Ticket]:
        self.now += after_s
        self.last = self.gate.poll(self.now)
        assert self.last.wake_at_s is None or self.last.wake_at_s > self.now
        return list(self.last.granted)

    def sleep(self) -> list[Ticket]:
        """Moves the clock to `wake_at_s` and polls."""
        assert self.last.wake_at_s is not None
        self.now = self.last.wake_at_s
        return self.poll()

    def admit(self, count: int = 1, *, scope: str = "account") -> list[Ticket]:
        tickets = self.ask(count, scope=scope)
        permits = self.poll()
        assert permits == tickets
        return permits

    def settle(self, permits: list[Ticket], outcome: Outcome, hint_s: float | None = None) -> None:
        for permit in permits:
            self.gate.settle(permit, outcome, self.now, hint_s)

    def refuse(self, permits: list[Ticket], hint_s: float | None = None) -> None:
        """Refuses each permit with a 429 and enqueues its ticket again."""
        self.settle(permits, Outcome.THROTTLED, hint_s)
        for permit in permits:
            assert self.gate.enqueue(permit, self.now) is None

    def close(self, hint_s: float | None = None, *, scope: str = "account") -> Ticket:
        """Closes a scope by one 429. Its ticket is at the front of the queue."""
        permits = self.admit(scope=scope)
        self.refuse(permits, hint_s)
        assert self.poll() == []
        return permits[0]


# --- open -------------------------------------------------------------------------------------


def test_an_open_gate_grants_at_once() -> None:
    shell = Shell()
    (ticket,) = shell.ask()
    assert (shell.gate.waiting, shell.gate.in_flight) == (1, 0)
    (permit,) = shell.poll()
    assert permit is ticket
    assert permit.granted_at_s == shell.now
    assert (shell.gate.waiting, shell.gate.in_flight) == (0, 1)
    assert shell.last.wake_at_s is None
    shell.settle([permit], Outcome.SERVED)


def test_permits_never_exceed_max_in_flight() -> None:
    shell = Shell(max_in_flight=3)
    shell.ask(5)
    permits = shell.poll()
    assert len(permits) == 3
    assert shell.poll() == []
    shell.settle(permits[:1], Outcome.SERVED)
    assert len(shell.poll()) == 1


def test_scopes_take_turns_for_a_free_place() -> None:
    shell = Shell(max_in_flight=1)
    (running,) = shell.admit(scope="first")
    shell.ask(5, scope="a")
    shell.ask(2, scope="b")
    order = []
    for _ in range(7):
        shell.settle([running], Outcome.SERVED)
        (running,) = shell.poll()
        order.append(running.scope)
    assert order == ["a", "b", "a", "b", "a", "a", "a"]


@pytest.mark.parametrize(("max_in_flight", "max_waiting"), [(0, 1), (1, 0)])
def test_a_policy_that_lets_nothing_through_is_a_value_error(max_in_flight: int, max_waiting: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        GatePolicy(max_in_flight=max_in_flight, max_waiting=max_waiting)


def test_a_lane_weight_of_zero_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="weight must be at least 1"):
        GatePolicy(max_in_flight=1, max_waiting=1, lane_weights=(("a", 0),))


# --- closed -----------------------------------------------------------------------------------


def test_a_429_closes_its_scope_for_the_time_of_its_hint() -> None:
    shell = Shell()
    ticket = shell.close(60)
    assert shell.last.wake_at_s == shell.now + 60
    assert shell.gate.scopes.closed(shell.now) == {"account": shell.now + 60}
    assert shell.poll(after_s=59.9) == []
    assert shell.sleep() == [ticket]
    assert shell.gate.scopes.closed(shell.now) == {}


def test_a_closed_scope_does_not_stop_other_scopes() -> None:
    shell = Shell()
    shell.close(60, scope="v2:predict:m")
    assert len(shell.admit(10, scope="v2:other")) == 10
    assert len(shell.admit(10, scope="account")) == 10


def test_refused_requests_return_to_the_front_in_order_of_arrival() -> None:
    shell = Shell(max_in_flight=3)
    first, second, third, *rest = shell.ask(6)
    permits = shell.poll()
    shell.refuse([permits[2], permits[0], permits[1]], 5)
    order, served = [], shell.poll(after_s=5)
    while served:
        order += served
        shell.settle(served, Outcome.SERVED)
        served = shell.poll()
    assert order == [first, second, third, *rest]


def test_a_later_429_never_shortens_a_closure() -> None:
    shell = Shell()
    permits = shell.admit(3)
    start_s = shell.now
    shell.refuse(permits[:1], 10)
    shell.refuse(permits[1:2], 30)
    shell.refuse(permits[2:], 20)
    shell.poll()
    assert shell.last.wake_at_s == start_s + 30


def test_without_hints_the_backoff_doubles_from_one_second_to_sixty_with_one_probe_each() -> None:
    shell = Shell()
    shell.close()
    shell.ask(10)
    waits_s = []
    for _ in range(8):
        start_s = shell.now
        shell.poll()
        probe = shell.sleep()
        assert len(probe) == 1
        waits_s.append(shell.now - start_s)
        shell.refuse(probe)
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_backoff_starts_again_after_a_served_request() -> None:
    shell = Shell()
    shell.close()
    shell.refuse(shell.sleep())
    shell.poll()
    shell.settle(shell.sleep(), Outcome.SERVED)
    shell.close()
    assert shell.last.wake_at_s == shell.now + 1


def test_the_jitter_lengthens_the_backoff() -> None:
    shell = Shell(jitter=lambda: 1.0)
    shell.close()
    assert shell.last.wake_at_s == shell.now + 1.25


@pytest.mark.parametrize("hint_s", [0.0, -1.0, math.nan, math.inf])
def test_a_hint_that_is_not_positive_and_finite_is_ignored(hint_s: float) -> None:
    shell = Shell()
    shell.close(hint_s)
    assert shell.last.wake_at_s == shell.now + 1


def test_a_burst_refused_without_a_hint_is_one_closure() -> None:
    shell = Shell()
    shell.refuse(shell.admit(10))
    shell.poll()
    assert shell.last.wake_at_s == shell.now + 1


def test_a_served_request_from_before_the_closure_does_not_reset_the_backoff() -> None:
    shell = Shell()
    slow, quick = shell.admit(2)
    shell.refuse([quick])
    shell.poll()
    shell.settle([slow], Outcome.SERVED)
    for _ in range(3):
        shell.refuse(shell.sleep())
        shell.poll()
    assert shell.last.wake_at_s == shell.now + 5  # 10 s after the served request, and no more than 8 s from now


# --- reopening --------------------------------------------------------------------------------


def test_a_429_to_the_probe_closes_the_scope_again() -> None:
    shell = Shell()
    shell.close(10)
    second, *_ = shell.ask(40)
    shell.refuse(shell.sleep(), 20)
    substitute = shell.poll()
    assert substitute == [second]
    shell.refuse(substitute, 20)
    assert shell.poll() == []
    assert shell.last.wake_at_s == shell.now + 20
    assert len(shell.sleep()) == 1


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNUSED, Outcome.KEY_REJECTED])
def test_after_a_probe_without_a_result_the_next_ticket_probes(outcome: Outcome) -> None:
    shell = Shell()
    shell.close(10)
    queue = shell.ask(20)
    shell.settle(shell.sleep(), outcome)
    for ticket in queue[:5]:
        probe = shell.poll()
        assert probe == [ticket]
        assert shell.poll() == []
        shell.settle(probe, outcome)


def test_the_acceptance_timeout_is_twice_the_usual_time_of_a_429() -> None:
    shell = Shell()
    permits = shell.admit()
    shell.now += 3
    shell.refuse(permits, 10)
    shell.ask(40)
    shell.poll()
    shell.sleep()
    start_s = shell.now
    shell.sleep()
    assert shell.now - start_s == 6


def test_the_acceptance_timeout_falls_slowly_and_has_a_maximum() -> None:
    shell = Shell()
    permits = shell.admit(2)
    shell.now += 100
    shell.refuse(permits[:1], 10)
    shell.ask(40)
    shell.poll()
    probe = shell.sleep()
    assert shell.last.wake_at_s == shell.now + 30
    shell.refuse(probe, 10)
    shell.refuse(shell.poll(), 10)  # at once: the usual time falls from 100 s to 80 s
    assert shell.gate.scopes.by_name["account"].limit.slow_start.timeout_s == 30


def test_the_probe_waits_until_requests_sent_before_the_closure_time_out() -> None:
    shell = Shell()
    slow, quick = shell.admit(2)
    shell.refuse([quick], 0.25)
    assert shell.poll() == []
    assert len(shell.sleep()) == 1
    assert shell.now == 1001  # not at 1000.25: the slow request could still get a 429
    assert shell.gate.in_flight == 2
    shell.settle([slow], Outcome.SERVED)


def test_the_probe_goes_once_all_requests_sent_before_the_closure_have_ended() -> None:
    shell = Shell()
    slow, quick = shell.admit(2)
    shell.refuse([quick], 0.25)
    assert shell.poll(after_s=0.5) == []
    shell.settle([slow], Outcome.SERVED)
    assert len(shell.poll()) == 1


def test_a_late_429_with_a_hint_closes_a_reopened_scope_but_does_not_count_for_the_backoff() -> None:
    shell = Shell()
    slow, quick = shell.admit(2)
    shell.refuse([quick])
    shell.poll()
    shell.sleep()
    shell.refuse([slow], 30)
    assert shell.poll() == []
    assert shell.gate.scopes.closed(shell.now) == {"account": shell.now + 30}
    shell.now += 30
    shell.refuse(shell.poll())
    shell.poll()
    assert shell.gate.scopes.closed(shell.now) == {"account": shell.now + 2}  # the second backoff, not the third


def test_a_late_429_without_a_hint_changes_nothing() -> None:
    shell = Shell()
    slow, quick = shell.admit(2)
    shell.refuse([quick])
    shell.poll()
    shell.sleep()
    shell.refuse([slow])
    assert shell.gate.scopes.closed(shell.now) == {}


# --- deadlines, rejections, hang-ups ------------------------------------------------------------


def test_a_ticket_expires_at_its_deadline_with_a_retry_after() -> None:
    shell = Shell(max_in_flight=1)
    shell.admit()
    (ticket,) = shell.ask(wait_s=5)
    while not shell.last.expired:
        shell.poll()
        shell.sleep()
    assert shell.now == 1005
    assert shell.last.expired == [Expiry(ticket, Reason.DEADLINE_PASSED, MIN_RETRY_AFTER_S)]
    assert ticket.state is TicketState.ENDED
    assert shell.gate.waiting == 0
    assert shell.last.wake_at_s is None


def test_a_ticket_with_a_wait_of_zero_is_granted_at_once_or_expires() -> None:
    shell = Shell(max_in_flight=1)
    shell.ask(2, wait_s=0)
    assert len(shell.poll()) == 1
    assert [expiry.reason for expiry in shell.last.expired] == [Reason.DEADLINE_PASSED]


def test_a_late_poll_grants_nothing_after_a_deadline() -> None:
    shell = Shell()
    shell.ask(wait_s=1)
    assert shell.poll(after_s=2) == []
    assert len(shell.last.expired) == 1


def test_one_late_poll_expires_all_late_tickets() -> None:
    shell = Shell(max_in_flight=1)
    shell.admit()
    for wait_s in (10, 5):
        shell.ask(wait_s=wait_s)
        shell.poll()
    assert shell.poll(after_s=12) == []
    assert len(shell.last.expired) == 2


def test_a_hint_beyond_its_deadline_expires_a_waiting_ticket_at_once() -> None:
    shell = Shell(max_in_flight=1)
    running = shell.admit()
    short, patient = *shell.ask(wait_s=30), *shell.ask(wait_s=90)
    shell.poll()
    shell.settle(running, Outcome.THROTTLED, 60)
    assert shell.poll() == []
    assert shell.last.expired == [Expiry(short, Reason.CANNOT_BE_IN_TIME, 60)]
    assert shell.sleep() == [patient]


def test_a_hint_beyond_its_deadline_rejects_a_new_ticket_at_once() -> None:
    shell = Shell()
    shell.close(60)
    late = Ticket("account", shell.now + 59)
    assert shell.gate.enqueue(late, shell.now) == Rejection(Reason.CANNOT_BE_IN_TIME, 60, position=2)
    assert late.state is TicketState.NEW
    shell.now += 20
    assert shell.gate.enqueue(Ticket("account", shell.now + 59), shell.now) is None


def test_a_refused_request_is_rejected_if_its_scope_opens_after_its_deadline() -> None:
    shell = Shell()
    shell.ask(wait_s=30)
    (permit,) = shell.poll()
    shell.settle([permit], Outcome.THROTTLED, 60)
    rejection = shell.gate.enqueue(permit, shell.now)
    assert rejection == Rejection(Reason.CANNOT_BE_IN_TIME, 60, position=1)


def test_a_full_queue_rejects_with_the_rest_of_the_cooldown() -> None:
    shell = Shell(max_waiting=3)
    shell.close(60)
    shell.ask(2)
    newcomer = Ticket("account", shell.now + NEVER_S)
    assert shell.gate.enqueue(newcomer, shell.now + 20) == Rejection(Reason.QUEUE_FULL, 40, position=4)
    other = Ticket("other", shell.now + NEVER_S)
    assert shell.gate.enqueue(other, shell.now + 20) == Rejection(Reason.QUEUE_FULL, 1, position=1)
    shell.poll(after_s=60)
    assert shell.gate.enqueue(newcomer, shell.now) is None


def test_a_returned_ticket_may_wait_though_the_queue_is_full() -> None:
    shell = Shell(max_in_flight=1, max_waiting=1)
    permits = shell.admit()
    shell.ask()
    shell.refuse(permits, 5)
    assert shell.gate.waiting == 2


def test_a_withdrawn_ticket_is_never_granted() -> None:
    shell = Shell()
    shell.close(10)
    gone, stays = shell.ask(2)
    shell.gate.withdraw(gone, shell.now)
    granted = shell.poll(after_s=10) + shell.sleep()
    assert gone not in granted
    assert granted[-1] is stays
    assert gone.state is TicketState.ENDED


def test_without_waiting_tickets_the_gate_asks_for_no_poll() -> None:
    shell = Shell()
    shell.gate.withdraw(shell.close(10), shell.now)
    shell.poll()
    assert shell.gate.waiting == 0
    assert shell.last.wake_at_s == shell.now + 10  # to report the closure
    shell.sleep()
    assert [news.scope for news in shell.gate.news.take()] == ["account"]
    assert shell.last.wake_at_s is None


def test_withdrawing_a_ticket_that_does_not_wait_changes_nothing() -> None:
    shell = Shell()
    (permit,) = shell.admit()
    shell.gate.withdraw(permit, shell.now)
    assert shell.gate.in_flight == 1
    (mine,) = shell.ask()
    shell.gate.withdraw(Ticket("account", NEVER_S), shell.now)
    assert shell.poll() == [mine]


# --- programming errors -----------------------------------------------------------------------


def test_a_permit_settles_once() -> None:
    shell = Shell()
    permits = shell.admit()
    shell.settle(permits, Outcome.SERVED)
    with pytest.raises(ValueError, match="already settled"):
        shell.settle(permits, Outcome.SERVED)


def test_another_gates_permit_cannot_be_settled() -> None:
    permits = Shell().admit()
    with pytest.raises(ValueError, match="belongs to another gate"):
        Shell().settle(permits, Outcome.UNUSED)


def test_a_ticket_cannot_be_enqueued_while_it_waits_or_has_a_permit_or_after_its_end() -> None:
    shell = Shell()
    (ticket,) = shell.ask()
    with pytest.raises(ValueError, match="in state waiting cannot be enqueued"):
        shell.gate.enqueue(ticket, shell.now)
    permits = shell.poll()
    with pytest.raises(ValueError, match="in state admitted cannot be enqueued"):
        shell.gate.enqueue(ticket, shell.now)
    shell.settle(permits, Outcome.SERVED)
    with pytest.raises(ValueError, match="in state ended cannot be enqueued"):
        shell.gate.enqueue(ticket, shell.now)


# --- bounds on memory -----------------------------------------------------------


def test_idle_scopes_are_forgotten() -> None:
    shell = Shell()
    for number in range(2000):
        shell.settle(shell.admit(scope=f"v2:predict:{number}"), Outcome.SERVED)
    assert len(shell.gate.scopes) < 200


def test_a_closed_scope_is_forgotten_only_after_it_has_opened() -> None:
    shell = Shell(max_in_flight=1000)
    closed = [shell.admit(scope=f"m{number}") for number in range(150)]
    for permits in closed:
        shell.settle(permits, Outcome.THROTTLED, 100)
    shell.settle(shell.admit(scope="longest"), Outcome.THROTTLED, 200)
    shown = shell.gate.scopes.closed(shell.now)
    assert len(shown) == MAX_CLOSED_SCOPES_SHOWN
    assert shown["longest"] == shell.now + 200
    shell.now += 160
    for number in range(500):
        shell.settle(shell.admit(scope=f"n{number}"), Outcome.SERVED)
    assert "m0" not in shell.gate.scopes.by_name
    assert list(shell.gate.scopes.closed(shell.now)) == ["longest"]


def test_scopes_whose_tickets_were_withdrawn_while_the_gate_was_full_leave_nothing_behind() -> None:
    shell = Shell(max_in_flight=1)
    running = shell.admit()
    (patient,) = shell.ask(scope="patient")
    for number in range(2000):
        (ticket,) = shell.ask(scope=f"m{number}")
        shell.poll()
        shell.gate.withdraw(ticket, shell.now)
        shell.poll()
    assert len(shell.gate.scopes) < 200
    assert len(shell.gate._places._turns) < 200
    assert len(shell.gate._timers) < 500
    shell.settle(running, Outcome.SERVED)
    assert shell.poll() == [patient]
    (back,) = shell.ask(scope="m1999")
    shell.gate.settle(shell.last.granted[0], Outcome.SERVED, shell.now)
    assert shell.poll() == [back]


def test_scopes_are_bounded_and_further_ones_share_one_scope_with_the_same_static_limit() -> None:
    limits = StaticLimits((StaticLimit.parse("v2:predict:* 5/minute"),))
    gate = Gate(GatePolicy(1000, 1000, static_limits=limits, max_scopes=10), lambda: 0.5)
    for number in range(100):
        ticket = Ticket(f"v2:predict:{number}", NEVER_S)
        if gate.try_admit(ticket, number * 0.001):
            gate.settle(ticket, Outcome.SERVED, number * 0.001)
    assert len(gate.scopes) == 11
    assert "v2:predict:* (others)" in gate.scopes.by_name
    assert not gate.try_admit(Ticket("v2:predict:new", NEVER_S), 1.0)
    assert gate.try_admit(Ticket("v2:predict:new", NEVER_S), 70.0)
    assert not gate.try_admit(Ticket("v2:predict:5", NEVER_S, cost=6), 70.0)


def test_unlimited_further_scopes_share_one_scope_until_others_are_forgotten() -> None:
    gate = Gate(GatePolicy(1000, 1000, max_scopes=10), lambda: 0.5)
    busy = [Ticket(f"m{number}", NEVER_S) for number in range(20)]
    assert all(gate.try_admit(ticket, 0.0) for ticket in busy)
    assert len(gate.scopes) == 11
    assert busy[10].scope == busy[19].scope == "(others)"
    for ticket in busy:
        gate.settle(ticket, Outcome.SERVED, 0.1)
    later = Ticket("later", NEVER_S)
    assert gate.try_admit(later, 5.0)
    assert later.scope == "later"


def test_a_ticket_behind_others_asks_for_a_poll_only_if_its_deadline_is_the_first() -> None:
    shell = Shell(max_in_flight=1)
    shell.admit()
    shell.ask(wait_s=60)
    assert shell.gate.needs_poll
    shell.poll()
    shell.ask(100, wait_s=60)
    assert not shell.gate.needs_poll
    shell.ask(wait_s=0.5)
    assert shell.gate.needs_poll
    shell.poll()
    assert shell.last.wake_at_s == shell.now + 0.5


def test_withdrawn_and_granted_tickets_leave_nothing_behind() -> None:
    shell = Shell(max_in_flight=1)
    running = shell.admit()
    stays = shell.ask(3)
    for _ in range(2000):
        shell.gate.withdraw(shell.ask()[0], shell.now)
        shell.poll()
    scope = shell.gate.scopes.by_name["account"]
    assert sum(lane.entries for lane in scope.queue._turns) < 200
    assert len(scope.deadlines) < 200
    order = []
    for _ in range(3):
        shell.settle(running, Outcome.SERVED)
        running = shell.poll()
        order += running
    assert order == stays


def test_a_request_with_many_refusals_leaves_nothing_behind() -> None:
    shell = Shell(max_in_flight=1)
    shell.close(1)
    shell.ask(3)
    for _ in range(500):
        permits = shell.sleep()
        while permits:
            shell.refuse(permits, 1)
            permits = shell.poll()
    assert len(shell.gate.scopes.by_name["account"].deadlines) < 200
    assert len(shell.gate._timers) < 200


def test_ten_thousand_waiting_requests_are_served_in_order_of_arrival() -> None:
    shell = Shell(max_waiting=10_000)
    first = shell.close(60)
    tickets = [first, *shell.ask(9_999)]
    rejection = shell.gate.enqueue(Ticket("account", shell.now + NEVER_S), shell.now)
    assert rejection is not None
    shell.poll()
    order, permits = [], shell.sleep()
    while permits:
        order += permits
        shell.settle(permits, Outcome.SERVED)
        permits = shell.poll()
    assert order == tickets


def test_one_caller_cannot_fill_the_queue_for_others() -> None:
    gate = Gate(GatePolicy(max_in_flight=1, max_waiting=100, max_waiting_per_lane=2), lambda: 0.0)
    for _ in range(2):
        assert gate.enqueue(Ticket("account", NEVER_S, lane="busy"), 0.0) is None
    rejection = gate.enqueue(Ticket("account", NEVER_S, lane="busy"), 0.0)
    assert rejection is not None
    assert rejection.reason is Reason.LANE_FULL
    assert rejection.retry_after_s >= MIN_RETRY_AFTER_S
    assert gate.enqueue(Ticket("account", NEVER_S, lane="quiet"), 0.0) is None


# --- try_admit --------------------------------------------------------------------------------


def test_a_ticket_that_need_not_wait_is_admitted_without_the_queue() -> None:
    shell = Shell()
    ticket = Ticket("account", shell.now)
    assert shell.gate.try_admit(ticket, shell.now)
    assert (ticket.state, shell.gate.in_flight) == (TicketState.ADMITTED, 1)
    with pytest.raises(ValueError, match="in state admitted cannot be admitted at once"):
        shell.gate.try_admit(ticket, shell.now)


def test_a_new_ticket_is_not_admitted_before_waiting_ones() -> None:
    shell = Shell(max_in_flight=1)
    (first,) = shell.admit()
    shell.ask()
    assert shell.poll() == []
    assert not shell.gate.try_admit(Ticket("account", NEVER_S), shell.now)
    assert not shell.gate.try_admit(Ticket("v2:other", NEVER_S), shell.now), (
        "the next free place belongs to the waiting ticket"
    )
    shell.settle([first], Outcome.SERVED)
    assert len(shell.poll()) == 1


def test_a_closed_scope_admits_only_the_probe_once_it_is_due() -> None:
    shell = Shell()
    shell.settle(shell.admit(), Outcome.THROTTLED, 5.0)
    ticket = Ticket("account", NEVER_S)
    assert not shell.gate.try_admit(ticket, shell.now + 4.9)
    assert shell.gate.try_admit(ticket, shell.now + 5.0), "this ticket is the probe"
    assert not shell.gate.try_admit(Ticket("account", NEVER_S), shell.now + 5.0)


def test_a_ticket_is_admitted_at_its_deadline_but_not_after_it() -> None:
    shell = Shell()
    shell.settle(shell.admit(), Outcome.FAILED)
    late = Ticket("account", shell.now + 1.0)
    assert not shell.gate.try_admit(late, shell.now + 1.1)
    assert shell.gate.try_admit(late, shell.now + 1.0)


def test_a_ticket_that_need_not_wait_is_admitted_though_the_queue_is_full() -> None:
    shell = Shell(max_waiting=1)
    shell.settle(shell.admit(), Outcome.THROTTLED, 60.0)
    shell.ask()
    other = Ticket("v2:other", NEVER_S)
    assert shell.gate.try_admit(other, shell.now)


# --- costs --------------------------------------------------------------------------------------


def paged(limit: str) -> Gate:
    limits = StaticLimits((StaticLimit.parse(limit),))
    return Gate(GatePolicy(max_in_flight=64, max_waiting=64, static_limits=limits), lambda: 0.5)


def test_a_cost_that_becomes_known_after_the_grant_is_corrected() -> None:
    scene = GateScene("account 20 pages/minute")
    first, second = (Ticket("account", NEVER_S, lane="a", cost=2.5) for _ in range(2))
    waiting = [Ticket("account", NEVER_S, lane=lane, cost=5) for lane in "aaab"]
    for ticket in (first, second, *waiting):
        scene.gate.enqueue(ticket, 0.0)
    assert scene.gate.poll(0.0).granted == [first, waiting[3], second, waiting[0], waiting[1]]
    scene.gate.correct_cost(first, 1)
    assert first.cost == 1
    assert not scene.gate.poll(0.0).granted
    scene.gate.settle(second, Outcome.SERVED, 0.1)
    scene.gate.correct_cost(second, 1)
    assert not scene.gate.poll(0.1).granted
    scene.gate.settle(waiting[0], Outcome.THROTTLED, 0.2, 1.0)
    scene.gate.correct_cost(waiting[0], 30)
    rejection = scene.gate.enqueue(waiting[0], 0.2)
    assert rejection is not None
    assert rejection.reason is Reason.LARGER_THAN_LIMIT
    scene.gate.correct_cost(Ticket("elsewhere", NEVER_S), 3)


def test_a_request_uses_as_much_of_the_limit_as_it_costs() -> None:
    gate = paged("account 10/s")
    tickets = [Ticket("account", NEVER_S, cost=4) for _ in range(3)]
    assert [gate.try_admit(ticket, 0.0) for ticket in tickets] == [True, True, False]
    assert gate.try_admit(Ticket("account", NEVER_S, cost=2), 0.0)
    assert gate.enqueue(tickets[2], 0.0) is None
    assert gate.poll(0.5).granted == []
    assert gate.poll(1.0).granted == [tickets[2]]


def test_when_the_first_request_expires_a_smaller_one_behind_it_goes_at_once() -> None:
    """Otherwise it would wait for the next event of its scope, which may be its own deadline."""
    gate = paged("account 10/s")
    sent = [Ticket("account", NEVER_S, cost=4) for _ in range(2)]
    assert [gate.try_admit(ticket, now) for ticket, now in zip(sent, (0.0, 0.4), strict=True)] == [True, True]
    large, small = Ticket("account", 1.2, cost=7), Ticket("account", NEVER_S, cost=5)
    assert gate.enqueue(large, 0.5) is None
    assert gate.enqueue(small, 0.5) is None
    assert gate.poll(0.5).granted == []
    assert gate.poll(1.0).granted == []
    verdicts = gate.poll(1.2)
    assert [expiry.ticket for expiry in verdicts.expired] == [large]
    assert verdicts.granted == [small]


def test_a_request_that_exceeds_the_whole_limit_is_rejected_at_once() -> None:
    gate = paged("account 10/s")
    ticket = Ticket("account", NEVER_S, cost=11)
    assert not gate.try_admit(ticket, 0.0)
    rejection = gate.enqueue(ticket, 0.0)
    assert rejection is not None
    assert rejection.reason is Reason.LARGER_THAN_LIMIT
    assert rejection.retry_after_s == math.inf


def learned(gate: Gate, count: int) -> float:
    """Teaches a gate that `count` requests go in about 10 s. Returns an instant with an empty window."""
    for number in range(count + 1):
        ticket = Ticket("account", NEVER_S)
        assert gate.try_admit(ticket, number * 0.01)
        hint_s = 10.0 if number == count else None
        gate.settle(ticket, Outcome.SERVED if hint_s is None else Outcome.THROTTLED, number * 0.01, hint_s)
    probe = Ticket("account", NEVER_S)
    gate.poll(10.2)
    assert gate.try_admit(probe, 10.2)
    gate.settle(probe, Outcome.SERVED, 10.3)
    return 40.0


def test_a_request_that_exceeds_the_estimate_is_tried_once_alone() -> None:
    gate = Gate(GatePolicy(max_in_flight=64, max_waiting=64, acceptance_timeout_first_s=1.0), lambda: 0.5)
    now = learned(gate, 5)
    first, second, third = (Ticket("account", NEVER_S, cost=cost) for cost in (8, 9, 8))
    assert gate.try_admit(first, now)
    assert gate.enqueue(second, now) is None
    assert gate.enqueue(third, now) is None
    assert gate.poll(now + 0.1).granted == []
    gate.settle(first, Outcome.THROTTLED, now + 0.1, 1.0)
    verdicts = gate.poll(now + 0.1)
    assert [(expiry.ticket, expiry.reason) for expiry in verdicts.expired] == [
        (second, Reason.LARGER_THAN_LIMIT),
        (third, Reason.LARGER_THAN_LIMIT),
    ]
    rejection = gate.enqueue(first, now + 0.1)
    assert rejection is not None
    assert rejection.reason is Reason.LARGER_THAN_LIMIT
    assert gate.enqueue(Ticket("account", NEVER_S, cost=3), now + 0.1) is None


def test_a_request_that_certainly_exceeds_the_limit_is_not_even_a_recovery_probe() -> None:
    gate = Gate(GatePolicy(max_in_flight=64, max_waiting=64, acceptance_timeout_first_s=1.0), lambda: 0.5)
    now = learned(gate, 5)
    large = Ticket("account", NEVER_S, cost=9)
    assert gate.try_admit(large, now)
    gate.settle(large, Outcome.THROTTLED, now + 0.1, 1.0)
    gate.poll(now + 60)
    assert not gate.try_admit(Ticket("account", NEVER_S, cost=9), now + 60)


def test_a_request_that_exceeds_the_estimate_and_is_accepted_raises_it() -> None:
    gate = Gate(GatePolicy(max_in_flight=64, max_waiting=64, acceptance_timeout_first_s=1.0), lambda: 0.5)
    now = learned(gate, 5)
    large = Ticket("account", NEVER_S, cost=8)
    assert gate.try_admit(large, now)
    gate.settle(large, Outcome.SERVED, now + 0.1)
    assert gate.scopes.by_name["account"].limit.estimate.window.count == 8
