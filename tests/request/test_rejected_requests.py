"""401s that concern one request and not its key, seen from both ends of the wire."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from nanonets_proxy.core.keys import doubts, evidence
from nanonets_proxy.keys.source import FileKey
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream, responding

REJECTED = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 15\r\n\r\n{"code":"none"}'
MARK = b"nanonets-proxy; received-status=401; details="


async def forbid_some(exchange: Exchange) -> None:
    await exchange.respond(REJECTED if b"/forbidden" in exchange.lines[0] else OK)


@pytest.fixture
def source(tmp_path: Path) -> FileKey:
    (tmp_path / "key").write_text("good")
    return FileKey(tmp_path / "key")


async def test_ten_callers_are_served_while_one_gets_401s(source: FileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (doubts, evidence):  # a busy machine may pause for longer than that
        monkeypatch.setattr(module, "NOTICE_S", 3600.0)
    with captured_log() as log:
        async with (
            ScriptedUpstream(forbid_some) as upstream,
            running_proxy(upstream.origin, source, key_gap="1h", max_wait="1h") as proxy,
            await proxy.caller() as unlucky,
            proxy.callers(10) as others,
        ):
            assert (await unlucky.get(b"/x")).status == 200
            for number in range(20):
                rejected = asyncio.create_task(unlucky.get(b"/forbidden/%d?page=%d" % (number // 2, number)))
                while not rejected.done():
                    served = await asyncio.gather(*(other.get(b"/x") for other in others))
                    assert {response.status for response in served} == {200}
                assert rejected.result().status == 401
            assert proxy.proxy.key_status().warnings == ()
        sent = [exchange for exchange in upstream.requests if b"/forbidden" in exchange.lines[0]]
        assert len(sent) == 20, "each request is sent once"
        others_events = [event for event in log.events("request") if event["path"] == "/x"]
        assert {event["attempts"] for event in others_events} == {1}
        names = Counter(json.loads(line)["event"] for line in log.text().splitlines())
        key_events = {name for name in names if name.startswith("key_")}
        assert key_events == {"key_candidate", "key_active", "key_cleared"}
        assert names["key_cleared"] == 10


async def test_one_key_from_the_environment_gets_its_401_at_once_after_one_sending() -> None:
    async with ScriptedUpstream(forbid_some) as upstream, running_proxy(upstream.origin, max_wait="1h") as proxy:
        async with await proxy.caller() as caller:
            assert (await caller.get(b"/x")).status == 200
            response = await caller.get(b"/forbidden")
            assert (response.status, response.body) == (401, b'{"code":"none"}')
        assert len(upstream.requests) == 2
        assert proxy.proxy.key_status().state == "serving"


async def test_a_wrong_key_from_the_start_gets_its_401_at_once_and_the_response_names_the_cause(
    source: FileKey,
) -> None:
    async with (
        ScriptedUpstream(responding(REJECTED)) as upstream,
        running_proxy(upstream.origin, source, key_gap="10m", max_wait="1h") as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            response = await caller.get(b"/x")
            assert response.status == 401
            assert response.value(b"Proxy-Status").startswith(MARK + b'"key_rejected: ')
        assert len(upstream.requests) == 2
        assert proxy.proxy.key_status().state == "spent"
        assert proxy.proxy.metrics.registry.get_sample_value("nanonets_proxy_key_candidate_rejected") == 1.0


async def test_the_401_of_a_request_whose_key_works_says_so() -> None:
    async with ScriptedUpstream(forbid_some) as upstream, running_proxy(upstream.origin) as proxy:
        async with await proxy.caller() as caller:
            assert (await caller.get(b"/x")).status == 200
            response = await caller.get(b"/forbidden")
            assert response.value(b"Proxy-Status").startswith(MARK + b'"unauthorized: '), "not known yet"
            assert (await caller.get(b"/x")).status == 200
            response = await caller.get(b"/forbidden")
        assert response.value(b"Proxy-Status").startswith(MARK + b'"request_rejected: ')


async def test_a_caller_alone_waits_for_a_new_key_and_its_request_is_sent_with_that_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    good = b"Basic bmV3Og=="
    revoked = False

    async def script(exchange: Exchange) -> None:
        await exchange.respond(REJECTED if revoked and good not in exchange.head else OK)

    async with (
        ScriptedUpstream(script) as upstream,
        running_proxy(upstream.origin, FileKey(path)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        revoked = True
        with captured_log() as log:
            await caller.send(request(b"GET", b"/x"))
            await until(lambda: proxy.proxy.key_manager._keyring._evidence.hold.reported_s is not None)
            path.write_text("new")
            assert (await caller.response()).status == 200
        (ended,) = log.events("key_gap_ended")
        assert ended["level"] == "info"
        assert ended["state"] == "serving"
        assert sum(exchange.head.startswith(b"GET /x ") for exchange in upstream.requests) == 3


async def test_a_gap_without_a_new_key_ends_with_an_error_in_the_log(source: FileKey) -> None:
    revoked = False

    async def script(exchange: Exchange) -> None:
        await exchange.respond(REJECTED if revoked else OK)

    async with (
        ScriptedUpstream(script) as upstream,
        running_proxy(upstream.origin, source, key_gap="2s", max_wait="1h") as proxy,
    ):
        async with proxy.callers(2) as callers:
            assert (await callers[0].get(b"/x")).status == 200
            revoked = True
            with captured_log() as log:
                responses = await asyncio.gather(callers[0].get(b"/x"), callers[1].get(b"/y"))
                assert [response.status for response in responses] == [401, 401]
                await until(lambda: not proxy.proxy.key_manager._keyring._evidence.hold.reported_s)
        assert len(log.events("key_rejected")) == 1
        (ended,) = log.events("key_gap_ended")
        assert (ended["level"], ended["state"]) == ("error", "spent")
        assert ended["lasted_s"] > 1.5
