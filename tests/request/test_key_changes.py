"""Requests whose key the upstream rejects, seen from both ends of the wire."""

import asyncio
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys import change_watch
from nanonets_proxy.keys.change_watch import ChangeWatch, FileWatch, NoChanges
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import chunked, request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream, responding

REJECTED = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 15\r\n\r\n{"code":"none"}'


@dataclass
class Store:
    """A key source whose keys a test changes, and whose readings a test delays."""

    keys: list[str]
    readings: int = 0
    open: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    name: str = "test:store"
    own_watch: ChangeWatch = field(default_factory=NoChanges)

    def __post_init__(self) -> None:
        self.open.set()

    def read(self) -> tuple[FoundKey, ...]:
        self.readings += 1
        assert self.open.wait(10)
        if self.fault is not None:
            raise self.fault
        return tuple(FoundKey(ApiKey.parse(key, f"test:{key}"), 0.0) for key in self.keys)

    def watch(self) -> ChangeWatch:
        return self.own_watch


def key_name(exchange: Exchange) -> str:
    (line,) = [line for line in exchange.lines if line.startswith(b"Authorization: Basic ")]
    for key in ("new", "old", "good"):
        if line.endswith(b64encode(f"{key}:".encode())):
            return key
    raise AssertionError(line)


def alerts(proxy: RunningProxy) -> list[str]:
    return [alert["event"] for alert in proxy.proxy.alerts.to_json()]


async def test_a_post_is_sent_again_with_its_body_on_the_same_connection() -> None:
    async with (
        ScriptedUpstream(responding(REJECTED, OK)) as upstream,
        running_proxy(upstream.origin, Store(["new", "old"])) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.post(b"/x", b"abc" * 1000)
        assert response.status == 200
        assert [key_name(exchange) for exchange in upstream.requests] == ["new", "old"]
        assert [exchange.body for exchange in upstream.requests] == [b"abc" * 1000] * 2
        assert upstream.connections == 1


async def test_a_large_upload_tests_no_candidate_and_is_sent_again_from_the_spool_file() -> None:
    async with (
        ScriptedUpstream(responding(REJECTED, OK)) as upstream,
        running_proxy(upstream.origin, Store(["new", "old"]), body_memory="1KiB") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.post(b"/x", b"a" * 100_000)).status == 200
        assert [key_name(exchange) for exchange in upstream.requests] == ["old", "new"]
        assert upstream.requests[1].body == b"a" * 100_000


async def test_a_request_that_cannot_be_sent_again_gets_the_upstreams_401() -> None:
    async with (
        ScriptedUpstream(responding(REJECTED, OK)) as upstream,
        running_proxy(upstream.origin, Store(["new", "old"]), body_memory="1KiB", replay_limit="1KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Transfer-Encoding: chunked") + chunked(b"a" * 2000, b"b"))
        response = await caller.response()
        assert (response.status, response.body) == (401, b'{"code":"none"}')
        assert len(upstream.requests) == 1


async def test_a_request_in_flight_finishes_with_the_key_it_began_with() -> None:
    store = Store(["old"])
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, store) as proxy,
        await proxy.caller() as slow,
        await proxy.caller() as quick,
    ):
        await slow.send(request(b"GET", b"/slow"))
        in_flight = await upstream.next_request()
        store.keys = ["new"]
        await proxy.proxy.reload()
        await quick.send(request(b"GET", b"/quick"))
        await (await upstream.next_request()).respond(OK)
        assert (await quick.response()).status == 200
        await in_flight.respond(OK)
        assert (await slow.response()).status == 200
        assert [key_name(exchange) for exchange in upstream.requests] == ["old", "new"]


async def test_concurrent_401s_share_one_reading() -> None:
    store = Store(["old"])

    async def script(exchange: Exchange) -> None:
        await exchange.respond(OK if key_name(exchange) == "new" else REJECTED)

    async with ScriptedUpstream(script) as upstream, running_proxy(upstream.origin, store) as proxy:
        await until(lambda: store.readings == 2)  # the first, and the one that begins the watch
        async with proxy.callers(10) as callers:
            store.open.clear()
            store.keys = ["new"]
            for caller in callers:
                await caller.send(request(b"GET", b"/x"))
            await until(lambda: store.readings == 3)
            await until(lambda: proxy.in_flight == 0)
            store.open.set()
            responses = await asyncio.gather(*(caller.response() for caller in callers))
        assert [response.status for response in responses] == [200] * 10
        assert store.readings == 3


async def test_a_reading_without_a_new_key_wakes_no_request_that_waits_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(["old"])
    async with (
        ScriptedUpstream(responding(OK, REJECTED)) as upstream,
        running_proxy(upstream.origin, store, key_gap="20s") as proxy,
        proxy.callers(3) as callers,
    ):
        assert (await callers[0].get(b"/x")).status == 200
        for number, caller in enumerate(callers):
            await caller.send(request(b"GET", b"/%d" % number))
        manager = proxy.proxy.key_manager
        await until(lambda: not manager.has_usable_key() and not manager._keyring.needs_reading)
        wake_ups: list[int] = []
        monkeypatch.setattr(manager._change, "notify", lambda: wake_ups.append(store.readings))
        readings = store.readings
        await until(lambda: store.readings >= readings + 2)
        assert wake_ups == []
        monkeypatch.undo()


@pytest.mark.parametrize("fault", [KeyUnusable("test:store", "is empty"), RuntimeError("with the key in its text")])
async def test_a_failing_source_says_why_and_drops_no_key(fault: Exception) -> None:
    store = Store(["good"])
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, store) as proxy,
        await proxy.caller() as caller,
    ):
        store.fault = fault
        message = await proxy.proxy.reload()
        assert message in (
            "the API key of test:store is empty",
            "the API key of test:store is unavailable (RuntimeError)",
        )
        assert proxy.proxy.key_status().source_fault == message
        assert (await caller.get(b"/x")).status == 200


async def test_a_caller_that_hangs_up_while_held_leaves_nothing_behind() -> None:
    async with (
        ScriptedUpstream(responding(OK, REJECTED)) as upstream,
        running_proxy(upstream.origin, Store(["old"]), key_gap="60s") as proxy,
    ):
        async with await proxy.caller() as first, await proxy.caller() as second:
            assert (await first.get(b"/x")).status == 200
            await first.send(request(b"GET", b"/x"))
            await until(lambda: len(upstream.requests) == 2)
            await second.send(request(b"GET", b"/y"))
            await until(lambda: proxy.proxy.key_status().state == "gap")
            assert len(_handlers()) == 2, "both requests are held"
        await until(lambda: proxy.proxy._server._open == 0)
        await until(lambda: not _handlers())


def _handlers() -> list[str]:
    """Returns the tasks that handle requests."""
    return [text for task in asyncio.all_tasks() if "CallerConnection._serve" in (text := repr(task))]


async def test_a_key_file_that_failed_for_a_moment_is_read_again_although_it_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by EIO of a disk, or ESTALE of a network share."""
    monkeypatch.setattr(change_watch, "_RETRY_S", 0.01)
    path = tmp_path / "key"
    path.write_text("old")
    store = Store(["old"], own_watch=FileWatch(path))
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, store) as proxy:
        await until(lambda: store.readings == 1)
        store.fault = KeyUnusable(store.name, "is unavailable: the file cannot be read: stale file handle")
        path.write_text("new")
        await until(lambda: store.readings > 2)
        assert "key_unusable" in alerts(proxy)
        store.fault = None
        await until(lambda: "key_unusable" not in alerts(proxy))
        readings = store.readings
        await asyncio.sleep(0.1)
        assert store.readings == readings


async def test_the_alert_about_a_rejected_key_says_what_callers_get_and_ends_with_a_good_key() -> None:
    store = Store(["old"])
    async with (
        ScriptedUpstream(responding(REJECTED, OK)) as upstream,
        running_proxy(upstream.origin, store, key_gap="5s") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 401
        (alert,) = [alert for alert in proxy.proxy.alerts.to_json() if alert["event"] == "key_unusable"]
        assert alert["sentence"].endswith(": callers get its 401."), "a key that never worked makes nobody wait"
        store.keys = ["good"]
        await proxy.proxy.reload()
        assert (await caller.get(b"/x")).status == 200
        assert "key_unusable" not in alerts(proxy)


async def test_the_alert_about_a_rejected_new_key_ends_when_the_source_has_the_working_key_again() -> None:
    async def reject_the_new(exchange: Exchange) -> None:
        await exchange.respond(REJECTED if key_name(exchange) == "new" else OK)

    store = Store(["old"])
    async with (
        ScriptedUpstream(reject_the_new) as upstream,
        running_proxy(upstream.origin, store) as proxy,
        await proxy.caller() as caller,
    ):
        for key, count in (("old", 0), ("new", 1), ("old", 0)):
            store.keys = [key]
            await proxy.proxy.reload()
            assert (await caller.get(b"/x")).status == 200
            assert alerts(proxy).count("key_unusable") == count


async def test_the_alert_about_a_rejected_new_key_stays_when_the_previous_key_works_again() -> None:
    rejected = {"new"}

    async def reject(exchange: Exchange) -> None:
        await exchange.respond(REJECTED if key_name(exchange) in rejected else OK)

    store = Store(["old"])
    async with (
        ScriptedUpstream(reject) as upstream,
        running_proxy(upstream.origin, store, key_gap="0s") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/a")).status == 200
        store.keys = ["new"]
        await proxy.proxy.reload()
        assert (await caller.get(b"/b")).status == 200
        rejected.add("old")
        assert [(await caller.get(target)).status for target in (b"/c", b"/d")] == [401, 401]
        assert alerts(proxy).count("key_unusable") == 2
        rejected.remove("old")
        assert 200 in [(await caller.get(b"/e")).status for _ in range(2)]
        (alert,) = [alert for alert in proxy.proxy.alerts.to_json() if alert["event"] == "key_unusable"]
        assert alert["sentence"].startswith("Nanonets rejects the new API key")
