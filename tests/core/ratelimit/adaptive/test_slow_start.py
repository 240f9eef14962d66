"""How slow start changes the bound on unconfirmed requests."""

from dataclasses import replace

from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

POLICY = GatePolicy(max_in_flight=256, max_waiting=1000)


def fill(slow_start: SlowStart, now: float) -> int:
    """Sends as many requests as there is room for. Returns how many these were."""
    first = serial = len(slow_start.unconfirmed) + int(now * 1e6)
    while slow_start.has_room(now):
        slow_start.unconfirmed[serial] = now
        serial += 1
    return serial - first


def test_a_cold_start_sends_64_requests_then_half_as_many_again_each_timeout() -> None:
    slow_start = SlowStart(POLICY)
    sent = []
    for step in range(3):
        now = 1.0 + 0.05 * step
        slow_start.accept_by_timeout(now)
        sent.append(fill(slow_start, now))
    assert sent == [64, 96, 144]


def test_the_next_job_of_the_same_size_needs_no_slow_start() -> None:
    slow_start = SlowStart(POLICY)
    sent, now = 0, 1.0
    while sent < 250:
        slow_start.accept_by_timeout(now)
        sent += fill(slow_start, now)
        now += 0.05
    slow_start.accept_by_timeout(now)
    assert fill(slow_start, now + 1.0) >= 250


def test_quick_responses_widen_a_cold_start_no_more_than_slow_ones_within_a_second() -> None:
    slow_start = SlowStart(POLICY)
    for serial in range(64):
        slow_start.unconfirmed[serial] = 1.0
        slow_start.accepted(serial, 1.001)
    assert slow_start.max_unconfirmed == 96


def test_after_a_restart_each_accepted_request_makes_room_for_two() -> None:
    slow_start = SlowStart(POLICY)
    slow_start.restart(1)
    slow_start.unconfirmed[1] = 0.0
    slow_start.accepted(1, 0.01)
    assert slow_start.max_unconfirmed == 2
    assert not slow_start.discard(1)


def test_a_share_of_a_limit_that_has_refused_requests_stays_at_one_unconfirmed_request() -> None:
    slow_start = SlowStart(replace(POLICY, is_share=True))
    slow_start.restart(16)
    for serial in range(5):
        assert fill(slow_start, float(serial)) == 1
        slow_start.accept_by_timeout(serial + 0.5)
    assert slow_start.max_unconfirmed == 1
