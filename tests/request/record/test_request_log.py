"""The log has one `request` event for each request, whatever its end, and no secret in any line."""

import itertools
import json
import logging
from base64 import b64encode
from urllib.parse import quote

import pytest
import structlog

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeTable
from nanonets_proxy.request import handler
from nanonets_proxy.telemetry import log as telemetry_log
from nanonets_proxy.telemetry.log import event_writer
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import AUTHORIZATION, KEY, running_proxy
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding

SECRETS = ApiKey.parse(KEY, "test").secrets()
TOO_MANY = b'HTTP/1.1 429 No\r\nContent-Length: 34\r\n\r\n{"details": {"retry_after": 0.05}}'


async def test_a_served_request_is_one_event_with_all_fields() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(TOO_MANY, OK)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.post(b"/api/v4/x?page=2&secret=hidden&flag", b"four", b"X-Request-Id: mine")
        (event,) = log.events("request")
    assert event.pop("timestamp")
    # The closure ends 0.05 s after the refusal, but a busy machine notices the refusal late.
    assert event.pop("wait_s") >= 0.0
    assert event.pop("upstream_s") >= 0.0
    assert event.pop("total_s") >= 0.04
    assert event == {
        "level": "info",
        "event": "request",
        "method": "POST",
        "path": "/api/v4/x?page&secret&…",
        "status": 200,
        "caller": "127.0.0.1",
        "scope": "account",
        "attempts": 2,
        "received_bytes": 4,
        "sent_bytes": 2,
        "request_id": "mine",
        "key": "test",
    }


@pytest.mark.parametrize(("share", "logged"), [(0.0, 0), (0.25, 5), (1.0, 20)])
async def test_a_share_of_the_successes_is_logged(
    share: float, logged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chances = itertools.cycle((0.1, 0.3, 0.6, 0.9))
    monkeypatch.setattr(handler, "random", lambda: next(chances))
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, log_successes=share) as proxy,
            await proxy.caller() as caller,
        ):
            for _ in range(20):
                await caller.get(b"/x")
            counted = {
                sample.labels["status"]: sample.value
                for family in proxy.proxy.metrics.requests.collect()
                for sample in family.samples
                if sample.name == "nanonets_proxy_requests_total"
            }
    events = log.events("request")
    assert len(events) == logged
    assert [event.get("log_successes") for event in events] == [share if share < 1 else None] * logged
    assert counted == {"2xx": 20}


async def test_every_error_is_logged_whatever_the_share_of_successes() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(ok(status=b"404 No"), ok(status=b"500 No"), ok())) as upstream,
            running_proxy(upstream.origin, log_successes=0) as proxy,
            await proxy.caller() as caller,
            await proxy.caller() as gone,
        ):
            for _ in range(3):
                await caller.get(b"/x")
            await caller.get(b"/x", b"Origin: http://evil.example")
            await gone.send(b"rubbish\r\n\r\n")
            await gone.response()
    events = log.events("request")
    assert [event["status"] for event in events] == [404, 500, 403, 400]
    assert not any("log_successes" in event for event in events)


async def test_a_success_after_a_retry_is_logged_whatever_the_share_of_successes() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(ok(status=b"503 No"), ok(), ok())) as upstream,
            running_proxy(upstream.origin, log_successes=0, retries=1, retry_backoff="1ms") as proxy,
            await proxy.caller() as caller,
        ):
            for _ in range(2):
                assert (await caller.get(b"/x")).status == 200
    (event,) = log.events("request")
    assert (event["status"], event["retried_after"]) == (200, "upstream_503")
    assert "log_successes" not in event


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("path", ["/x", '/"\\', "/\x01\x9b", "/caf\xe9", "/caf\udce9", "/50%d"])
def test_a_whole_event_is_written_as_structlog_writes_it(log_format: str, path: str) -> None:
    context = {"environment": "50%b"}
    fields = {"path": path, "status": 200, "upstream_s": None, "total_s": 0.0012}
    with captured_log(log_format=log_format) as log:
        emit = event_writer("request", **context)
        assert emit is not None
        emit(fields)
        structlog.get_logger(**context).info("request", **fields)
        whole, usual = log.text().splitlines()
    time_ends_at = whole.index("Z")
    assert whole[time_ends_at:] == usual[time_ends_at:]
    assert whole[:10] == usual[:10]


def test_a_whole_event_carries_its_time_in_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    at_s = [1e9, 1e9 + 0.000004, 1e9 + 0.5, 1e9 + 0.9999995, 1e9 + 1, 1e9 + 90_000.25, 1e9 + 61.125, 1e9 - 0.25]
    with captured_log() as log:
        emit = event_writer("request")
        assert emit is not None
        monkeypatch.setattr(telemetry_log, "time", iter(at_s).__next__)  # the clock may be set back
        for _ in at_s:
            emit({"path": "/"})
        times = [event["timestamp"] for event in log.events("request")]
    assert times == [
        "2001-09-09T01:46:40.000000Z",
        "2001-09-09T01:46:40.000004Z",
        "2001-09-09T01:46:40.500000Z",
        "2001-09-09T01:46:40.999999Z",
        "2001-09-09T01:46:41.000000Z",
        "2001-09-10T02:46:40.250000Z",
        "2001-09-09T01:47:41.125000Z",
        "2001-09-09T01:46:39.750000Z",
    ]


def test_whole_events_below_the_level_have_no_writer() -> None:
    with captured_log(level="warning"):
        assert event_writer("request") is None


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (404, "info"), (500, "warning"), (503, "warning")])
async def test_a_failure_of_the_upstream_is_a_warning(status: int, level: str) -> None:
    reply = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(reply)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x")).status == status
        (event,) = log.events("request")
    assert (event["status"], event["level"]) == (status, level)


async def test_every_line_begins_with_time_level_and_event() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(TOO_MANY, OK)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/x")
        events = [json.loads(line) for line in log.text().splitlines()]
    assert [event["event"] for event in events] == [
        "key_candidate",
        "limit_closed",
        "key_active",
        "request",
        "draining",
        "stopped",
    ]
    assert all(list(event)[:3] == ["timestamp", "level", "event"] for event in events)
    assert events[1]["retry_after_s"] == 0.05
    assert events[1]["scope"] == "account"
    assert events[1]["refused"] == 1


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request(b"GET", b"/x", b"Origin: https://evil.example"), 403, "forbidden_origin"),
        (request(b"TRACE", b"/x"), 405, "method_not_allowed"),
        (b"garbage\r\n\r\n", 400, "bad_request"),
        (request(b"GET", b"/x", b"Prefer: wait=0"), 429, "rate_limit_exceeded"),
    ],
)
async def test_a_rejected_request_is_one_event_with_its_error(sent: bytes, status: int, code: str) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(TOO_MANY)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(sent)
            response = await caller.response()
        (event,) = log.events("request")
    assert (event["status"], event["code"]) == (status, code)
    if b"wait=0" not in sent:  # this caller got the upstream's body
        assert event["error"] == response.json()["message"]
    assert event["request_id"].encode() == response.value(b"X-Request-Id")
    assert event["sent_bytes"] == len(response.body)


async def test_a_request_whose_caller_hung_up_is_one_event_without_a_status() -> None:
    with captured_log() as log:
        async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
            async with await proxy.caller() as caller:
                await caller.send(request(b"GET", b"/x"))
                await upstream.next_request()
            await until(lambda: proxy.in_flight == 0)
        (event,) = log.events("request")
    assert (event["status"], event["code"], event["attempts"]) == (0, "caller_gone", 1)
    assert event["request_id"]


async def test_a_response_that_broke_off_is_one_event_with_its_error() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            await caller.head()
            await caller.read(3)
            exchange.close()
            with pytest.raises(ConnectionResetError):
                await caller.read_to_end()
        (event,) = log.events("request")
    assert (event["status"], event["code"], event["sent_bytes"]) == (200, "upstream_closed", 3)


async def test_the_field_of_the_settings_names_the_caller() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, caller_header="X-Service") as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/x", b"x-service: billing")
            await caller.get(b"/x", b"X-Service: " + b"c" * 500)
            await caller.get(b"/x")
        assert [event["caller"] for event in log.events("request")] == ["billing", "c" * 128, "127.0.0.1"]


async def test_a_logged_path_has_a_maximal_length() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/" + b"p" * 5000)
        (event,) = log.events("request")
    assert len(event["path"]) <= 513


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_control_characters_in_a_callers_name_are_escaped(log_format: str) -> None:
    with captured_log(log_format=log_format) as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, caller_header="X-Service") as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/x", "X-Service: a\x9b31mred\x85\xad\t\u202eb é".encode())
        text = log.text()
    assert "red" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_the_key_is_blanked_in_every_line(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(_self: ScopeTable, _method: str, _path: str) -> str:
        raise RuntimeError(f"{KEY} {AUTHORIZATION.decode()}")

    encoded = b64encode(KEY.encode()).decode()
    with captured_log(*SECRETS, log_format=log_format) as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, caller_header="X-Service") as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(f"/{KEY}/{quote(KEY, safe='')}/{encoded}?{KEY}=1".encode())
            await caller.get(b"/x", f"X-Request-Id: {KEY}".encode(), f"X-Service: {encoded}".encode())
            monkeypatch.setattr(ScopeTable, "classify", leak)
            response = await caller.get(b"/y")
            assert response.status == 500
            assert response.json()["code"] == "internal_error"
            assert KEY.encode() not in response.head + response.body
            logging.getLogger("aiohttp.server").warning("seen: %s", KEY)
        text = log.text()
    assert "request_failed" in text
    assert "RuntimeError" in text
    assert "seen: [REDACTED]" in text
    assert not [secret for secret in SECRETS if secret.decode() in text]


async def test_an_internal_error_settles_the_permit_and_shows_the_caller_no_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            monkeypatch.setattr(ApiKey, "authorization", lambda *_: 1 / 0)
            response = await caller.post(b"/x", b"abc")
            assert response.json() == {
                "code": "internal_error",
                "message": "The proxy failed.",
                "details": {"request_id": response.value(b"X-Request-Id").decode()},
            }
            await proxy.check_idle()
        (failure,) = log.events("request_failed")
        (event,) = log.events("request")
    assert "ZeroDivisionError" in failure["exception"]
    assert failure["request_id"] == event["request_id"]


def test_events_below_the_level_are_not_written() -> None:
    with captured_log(level="warning") as log:
        structlog.get_logger().info("quiet")
        structlog.get_logger().warning("loud")
        logging.getLogger("asyncio").warning("%s is slow", "it")
        logging.getLogger("asyncio").info("chatter")
        logging.getLogger("asyncio").error("failed", exc_info=LookupError("why"))
        events = [json.loads(line) for line in log.text().splitlines()]
    assert [(event["level"], event["event"]) for event in events] == [
        ("warning", "loud"),
        ("warning", "library"),
        ("error", "library"),
    ]
    assert events[2]["exception"].endswith("LookupError: why")
    assert (events[1]["logger"], events[1]["message"]) == ("asyncio", "it is slow")


async def test_the_proxys_own_5xx_is_a_warning_with_the_details_for_the_caller() -> None:
    with captured_log(level="warning") as log:
        async with (
            ScriptedUpstream(responding(b"HTTP/9.9 200 OK\r\n\r\n")) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x")).status == 502
            assert (await caller.get(b"/x", b"Origin: https://evil.example")).status == 403
        (event,) = log.events("request")
    assert (event["level"], event["status"], event["code"]) == ("warning", 502, "upstream_bad_reply")


async def test_a_response_that_breaks_off_is_a_warning() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            await caller.head()
            exchange.close()
            with pytest.raises(ConnectionError):
                await caller.read_to_end()
        (event,) = log.events("request")
    assert (event["level"], event["status"], event["code"]) == ("warning", 200, "upstream_closed")


async def test_a_defect_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(ScopeTable, "classify", broken)
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x")).status == 500
        (event,) = log.events("request")
    assert (event["level"], event["code"]) == ("error", "internal_error")


async def test_a_rejections_details_are_in_the_log() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin, read_only=True) as proxy,
            await proxy.caller() as caller,
        ):
            details = (await caller.post(b"/x", b"")).json()["details"]
        (event,) = log.events("request")
    assert event["details"] == {"reason": details["reason"]}
