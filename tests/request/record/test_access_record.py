"""The access record of a request, its log event and its counts."""

import re
from time import perf_counter
from typing import Any

import pytest

from nanonets_proxy.request.access_record import AccessRecord


class _Request:
    method = "GET"
    target = "/a?token=secret"


def _record() -> AccessRecord:
    request: Any = _Request()
    return AccessRecord(request, "127.0.0.1")


def _finish(record: AccessRecord) -> dict[str, Any]:
    """Returns the log event."""
    events: list[dict[str, Any]] = []
    record.finish(events.append, ())
    (event,) = events
    return event


def test_each_request_without_an_id_gets_its_own() -> None:
    ids = {_record().request_id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", request_id) for request_id in ids)


def test_the_event_has_its_fields_in_order() -> None:
    record = _record()
    record.code, record.error = "caller_gone", "The caller hung up."
    record.upstream_s = 0.0
    assert list(_finish(record)) == [
        "method",
        "path",
        "status",
        "caller",
        "scope",
        "attempts",
        "wait_s",
        "upstream_s",
        "total_s",
        "received_bytes",
        "sent_bytes",
        "request_id",
        "key",
        "code",
        "error",
    ]


def test_the_event_of_a_served_request_has_no_error() -> None:
    event = _finish(_record())
    assert not {"code", "error"} & set(event)
    assert event["path"] == "/a?token"
    assert event["request_id"]


@pytest.mark.parametrize(
    ("seconds", "logged"), [(0.0, 0.0), (0.00004, 0.0), (0.00006, 0.0001), (1.23456, 1.2346), (299.99996, 300.0)]
)
def test_durations_are_rounded_to_a_tenth_of_a_millisecond(seconds: float, logged: float) -> None:
    record = _record()
    record.wait_s = record.upstream_s = seconds
    event = _finish(record)
    assert (event["wait_s"], event["upstream_s"]) == (logged, logged)


def test_the_total_is_the_time_since_the_request_began() -> None:
    before_s = perf_counter()
    record = _record()
    started_s = perf_counter()
    while perf_counter() < started_s + 0.002:
        pass
    total_s = _finish(record)["total_s"]
    assert 0.002 <= total_s <= perf_counter() - before_s + 0.0001
    assert total_s == round(total_s, 4)


def test_each_observer_gets_the_finished_record_with_or_without_a_log_event() -> None:
    record = _record()
    seen: list[Any] = []
    record.finish(None, [seen.append, lambda finished: seen.append(finished.total_s)])
    assert seen == [record, record.total_s]
    assert record.total_s > 0
