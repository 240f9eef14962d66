"""The numbers of the last hour's requests, in buckets."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.status.document import RequestCounts
from nanonets_proxy.core.status.request_counts import LatestRequests, RequestRing, Totals

_MINUTE = 6  # rotations


@dataclass
class _Request:
    status: int
    wait_s: float = 0.0
    upstream_s: float | None = None
    code: str = ""
    retried_after: str = ""


class Ring(RequestRing[_Request]):
    """A ring that remembers failed requests, and counts all requests itself."""

    def __init__(self) -> None:
        self.failed: list[_Request] = []
        self.requests: list[_Request] = [_Request(200, 1.0, 1.0)] * 7  # from before the ring began
        super().__init__(self._totals, self.failed.append)

    def _totals(self) -> Totals:
        upstream_s = [request.upstream_s for request in self.requests if request.upstream_s is not None]
        waits_s = [request.wait_s for request in self.requests]
        return len(self.requests), sum(waits_s), sum(upstream_s), len(upstream_s)

    def count(self, request: _Request) -> None:
        self.requests.append(request)
        if request.code or request.retried_after or not 200 <= request.status < 400:
            self.count_unusual(request)

    def note(self, status: int, wait_s: float = 0.0, upstream_s: float | None = None) -> None:
        self.count(_Request(status, wait_s, upstream_s))


def _rotate(ring: Ring, times: int) -> None:
    for _ in range(times):
        ring.rotate()


def _totals(counts: RequestCounts) -> dict[str, int]:
    names = ("served", "client_errors", "throttled", "server_errors", "gone")
    return {name: total for name in names if (total := sum(getattr(counts, name)))}


@pytest.mark.parametrize("code", ["not_implemented", "http_version_not_supported"])
def test_a_5xx_that_says_what_the_caller_did_wrong_is_an_error_of_the_caller(code: str) -> None:
    ring = Ring()
    request = _Request(501, code=code)
    ring.count(request)
    assert _totals(ring.counts()) == {"client_errors": 1}
    assert (ring.latest().ended, ring.latest().failed) == (1, 0)
    assert ring.failed == [request]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "served"),
        (304, "served"),
        (404, "client_errors"),
        (429, "throttled"),
        (503, "server_errors"),
        (999, "server_errors"),
        (0, "gone"),
    ],
)
def test_a_request_counts_by_its_outcome(status: int, outcome: str) -> None:
    ring = Ring()
    ring.note(status)
    assert _totals(ring.counts()) == {outcome: 1}


def test_a_request_is_in_the_last_bucket_and_moves_back_by_the_minute() -> None:
    ring = Ring()
    ring.note(200)
    positions = []
    for _ in range(60):
        positions.append(ring.counts().served.index(1))
        _rotate(ring, _MINUTE)
    assert positions == list(range(59, -1, -1))
    assert _totals(ring.counts()) == {}


def test_earlier_buckets_do_not_change_while_the_last_one_fills() -> None:
    ring = Ring()
    for _ in range(_MINUTE):
        ring.note(200)
        ring.rotate()
    seen = set()
    for _ in range(_MINUTE):
        counts = ring.counts()
        assert (len(counts.served), counts.served[-2]) == (60, 6)
        seen.add(counts.served[-1])
        ring.note(200)
        ring.rotate()
    assert seen == {0, 1, 2, 3, 4, 5}


def test_the_rate_is_the_mean_of_the_last_full_minute() -> None:
    ring = Ring()
    for _ in range(_MINUTE):
        for _ in range(30):
            ring.note(200)
        ring.rotate()
    ring.note(200)
    assert ring.counts().per_second == 3.0


def test_the_last_minute_has_all_requests_and_those_that_failed() -> None:
    ring = Ring()
    ring.note(502)
    _rotate(ring, _MINUTE)
    ring.note(200)
    ring.rotate()
    ring.note(503)
    ring.note(429)
    ring.note(0)
    assert ring.latest() == LatestRequests(4, 1, gone=1, span_s=20)


def test_the_last_buckets_alone_decide_if_they_have_three_requests() -> None:
    ring = Ring()
    for _ in range(100):
        ring.note(200)
    _rotate(ring, 2)
    ring.note(502)
    ring.note(502)
    assert ring.latest() == LatestRequests(102, 2)
    ring.rotate()
    ring.note(502)
    assert ring.latest() == LatestRequests(3, 3, span_s=20)
    ring.rotate()
    assert ring.latest() == LatestRequests(103, 3)


def test_the_last_minute_has_the_responses_that_the_api_does_not_send() -> None:
    ring = Ring()
    ring.note_unexpected()
    ring.note(200)
    _rotate(ring, _MINUTE - 1)
    assert ring.latest() == LatestRequests(1, 0, 1)
    ring.rotate()
    assert ring.latest() == LatestRequests()


def test_requests_with_an_unexpected_response_that_have_not_ended_count_as_ended() -> None:
    ring = Ring()
    for _ in range(3):
        ring.note_unexpected()
    ring.note(200)
    assert ring.latest() == LatestRequests(3, 0, 3, span_s=20)


def test_a_response_that_broke_off_counts_as_failed_and_not_as_served() -> None:
    ring = Ring()
    for request in (_Request(200), _Request(200, code="upstream_closed"), _Request(200, code="caller_gone")):
        ring.count(request)
    assert _totals(ring.counts()) == {"served": 2, "server_errors": 1}
    assert ring.latest() == LatestRequests(3, 1, span_s=20)


def test_requests_that_were_sent_again_count_with_the_kind_of_the_newest_failure() -> None:
    ring = Ring()
    for retried_after in ("", "upstream_503", "upstream_closed", ""):
        ring.count(_Request(200, retried_after=retried_after))
    assert ring.latest() == LatestRequests(4, span_s=20, retried=2)
    assert ring.newest_retry == "upstream_closed"


def test_requests_that_found_the_queue_full_count_with_the_newest_reason() -> None:
    ring = Ring()
    for reason, cause in (("queue_full", "limit"), ("queue_full_for_caller", "proxy")):
        ring.note_queue_full(reason, cause)
        ring.note(429)
    assert ring.latest() == LatestRequests(2, queue_full=2)
    assert ring.newest_full == ("queue_full_for_caller", "proxy")


def test_only_a_403_of_the_upstream_is_forbidden() -> None:
    ring = Ring()
    for request in (_Request(403), _Request(403, code="forbidden_by_policy"), _Request(404)):
        ring.count(request)
    assert ring.latest() == LatestRequests(3, span_s=20, forbidden=1)


def test_whole_responses_other_than_429_and_5xx_are_good() -> None:
    ring = Ring()
    for status in (200, 302, 404, 429, 500, 0):
        ring.note(status)
    ring.count(_Request(200, code="upstream_closed"))
    assert ring.good == 3
    _rotate(ring, 400)
    ring.note(200)
    assert ring.good == 4


def test_means_leave_out_requests_without_a_response() -> None:
    ring = Ring()
    ring.note(200, 4.0, 0.5)
    ring.note(200, 0.0, 1.5)
    ring.note(502)
    counts = ring.counts()
    assert (counts.mean_wait_s[-1], counts.mean_upstream_s[-1]) == (1.333, 1.0)
    assert (counts.mean_wait_s[0], counts.mean_upstream_s[0]) == (0.0, 0.0)


@given(st.lists(st.one_of(st.just("rotate"), st.sampled_from([0, 200, 404, 429, 500])), max_size=400))
def test_no_request_of_the_last_59_minutes_is_lost_and_none_counts_twice(events: list[str | int]) -> None:
    ring = Ring()
    ages: list[int] = []
    for event in events:
        if isinstance(event, str):
            ring.rotate()
            ages = [age + 1 for age in ages]
        else:
            ring.note(event)
            ages.append(0)
    shown = sum(_totals(ring.counts()).values())
    assert sum(age < 59 * _MINUTE for age in ages) <= shown <= sum(age < 60 * _MINUTE for age in ages)


def test_requests_with_an_error_status_or_a_code_are_failed() -> None:
    ring = Ring()
    for request in (_Request(200), _Request(404), _Request(502), _Request(0, code="caller_gone"), _Request(302)):
        ring.count(request)
    assert [(request.status, request.code) for request in ring.failed] == [(404, ""), (502, ""), (0, "caller_gone")]
