"""What the fleet benchmark counts. These tests measure no time."""

import pytest

from fleet.limits import learned, slowest_closure_s
from fleet.upgrade import unready
from support.commands.ports import free_port


def test_a_replica_that_does_not_respond_counts_as_not_ready() -> None:
    assert unready(f"http://127.0.0.1:{free_port()}") == "no_response"


def test_a_closure_ends_with_the_last_request_that_is_refused_soon_after_another_one() -> None:
    tests = [(5.0, 429), (5.02, 200)]
    assert slowest_closure_s([(1.0, 200), (1.03, 429), (1.01, 429), (1.08, 429), *tests]) == pytest.approx(0.07)
    assert slowest_closure_s([(1.0, 429), (1.01, 200), (1.3, 429)]) == 0.0


def test_a_log_names_the_limit_that_was_learned_last() -> None:
    event = {"event": "limit_learned", "concurrency_to": None, "count_to": 40, "period_to_s": 4.0}
    later = {**event, "timestamp": "2", "concurrency_to": 12}
    assert learned([{"event": "started"}]) == "nothing"
    assert learned([{**event, "timestamp": "1"}]) == "40 in 4 s"
    assert learned([later, {**event, "timestamp": "1"}]) == "12 in flight"
