"""Idle connections: which the pool hands out, and which it closes."""

import asyncio
from dataclasses import replace

import pytest

from nanonets_proxy.upstream import pool
from nanonets_proxy.upstream.exchange import UpstreamConnectionState
from support.client_harness import RunningClient, request, running_client
from support.eventually import WAIT_S, until
from support.raw_upstream import Peer, RawUpstream, Script, ok, responding

LATER_S = 1e9


async def fill(running: RunningClient, count: int) -> None:
    """Puts `count` idle connections into the pool, in the order in which they were opened."""
    exchanges = [await running.client.send(request()) for _ in range(count)]
    for exchange in exchanges:
        await running.read_response(exchange)
    assert running.pool.idle == count


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with RawUpstream(responding(*[ok(b"%d" % number) for number in range(5)])) as upstream:
        async with running_client(upstream.origin) as running:
            assert [(await running.fetch(request())).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert upstream.accepted == 1


async def test_the_newest_idle_connection_is_taken_first() -> None:
    numbers: list[int] = []

    async def script(peer: Peer) -> None:
        numbers.append(len(numbers))
        me = b"%d" % numbers[-1]
        await responding(ok(me), ok(me))(peer)

    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        await fill(running, 3)
        exchanges = [await running.client.send(request()) for _ in range(3)]
        assert [(await running.read_response(exchange)).body for exchange in exchanges] == [b"2", b"1", b"0"]
        assert upstream.accepted == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        ok(b"ok", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ok() + ok(b"evil"),
        ok() + b"\r\nevil",
    ],
)
async def test_a_connection_that_cannot_be_reused_is_closed(spoilt: bytes) -> None:
    async with RawUpstream(responding(spoilt)) as upstream, running_client(upstream.origin) as running:
        for number in (1, 2):
            assert (await running.fetch(request())).body == b"ok"
            assert (running.pool.idle, upstream.accepted) == (0, number)


async def test_an_unsolicited_response_never_reaches_the_next_request() -> None:
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"good"))
        await idle.wait()
        await peer.send(ok(b"evil"))
        await peer.read_to_end()

    async with (
        RawUpstream(script, responding(ok(b"good"))) as upstream,
        running_client(upstream.origin) as running,
    ):
        await running.fetch(request())
        idle.set()
        await until(lambda: upstream.ended == 1)
        assert (await running.fetch(request())).body == b"good"
        assert (upstream.accepted, running.retries) == (2, 0)


async def test_a_close_by_the_upstream_while_idle_is_noticed() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())

    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        await running.fetch(request())
        connection = running.pool._idle[0]
        await until(lambda: connection.state is UpstreamConnectionState.CLOSED)
        assert (await running.fetch(request("POST"))).body == b"ok"
        assert (upstream.accepted, running.retries) == (2, 0)


@pytest.mark.parametrize("check_socket", [True, False])
async def test_a_connection_that_was_idle_for_too_long_is_closed(check_socket: bool) -> None:
    async with RawUpstream(responding(ok())) as upstream, running_client(upstream.origin) as running:
        await fill(running, 2)
        assert running.pool.take_idle(LATER_S, check_socket) is None
        assert running.pool.idle == 0
        await until(lambda: upstream.ended == 2)


async def test_idle_connections_expire_without_traffic() -> None:
    async with (
        RawUpstream(responding(ok())) as upstream,
        running_client(upstream.origin, keep_alive_s=0.1) as running,
    ):
        await fill(running, 2)
        running.pool._idle[1].idle_since_s += 0.4  # as if it had become idle 0.4 s later
        await until(lambda: upstream.ended == 1)
        assert running.pool.idle == 1
        await until(lambda: upstream.ended == 2)
        assert running.pool.idle == 0


async def test_the_sweep_removes_closed_connections() -> None:
    async with (
        RawUpstream(responding(ok())) as upstream,
        running_client(upstream.origin, keep_alive_s=0.05) as running,
    ):
        await fill(running, 1)
        running.pool._idle[0].close()
        await until(lambda: running.pool.idle == 0)
        await fill(running, 1)  # starts a new sweep
        await until(lambda: running.pool.idle == 0)
        await until(lambda: upstream.ended == 2)


async def test_closing_the_pool_closes_idle_connections_now_and_busy_ones_when_given_back() -> None:
    async with RawUpstream(responding(ok(), ok())) as upstream, running_client(upstream.origin) as running:
        await fill(running, 2)
        busy = await running.client.send(request())
        running.pool.close()
        await until(lambda: upstream.ended == 1)
        assert (await running.read_response(busy)).body == b"ok"
        assert running.pool.idle == 0
        await until(lambda: upstream.ended == 2)


async def test_an_unused_pool_can_be_closed() -> None:
    async with RawUpstream(responding(ok())) as upstream, running_client(upstream.origin) as running:
        assert running.pool.idle == 0
        assert upstream.accepted == 0


# --- bytes of the upstream that belong to no request ----------------------------------------------


def behind_a_response(surplus: bytes, may_send: asyncio.Event) -> Script:
    """Responds on each connection; on the first two, sends `surplus` behind the response when the test says so."""
    opened: list[Peer] = []

    async def script(peer: Peer) -> None:
        opened.append(peer)
        is_faulty = len(opened) <= 2
        while await peer.head():
            await peer.send(ok())
            if is_faulty:
                await may_send.wait()
                await peer.send(surplus)

    return script


@pytest.mark.parametrize("surplus", [ok(b"evil"), b"x", b"\r\n\r\n"])
async def test_bytes_on_an_idle_connection_keep_later_connections_per_caller(surplus: bytes) -> None:
    noticed, may_send = asyncio.Event(), asyncio.Event()
    script = behind_a_response(surplus, may_send)
    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        running.pool._on_surplus = noticed.set
        await fill(running, 2)
        may_send.set()
        async with asyncio.timeout(WAIT_S):
            await noticed.wait()
        assert running.pool.idle == 0, "late bytes may be on their way on other connections too"
        for caller, accepted in (("a", 3), ("b", 4), ("a", 4), ("b", 4)):
            assert (await running.fetch(replace(request(), caller=caller))).body == b"ok"
            assert upstream.accepted == accepted


async def test_surplus_in_one_segment_with_the_response_is_noticed() -> None:
    noticed = asyncio.Event()
    async with (
        RawUpstream(responding(ok() + ok(b"evil"))) as upstream,
        running_client(upstream.origin) as running,
    ):
        running.pool._on_surplus = noticed.set
        assert (await running.fetch(request())).body == b"ok"
        assert noticed.is_set()
        assert running.pool.per_caller


async def test_a_408_before_the_close_of_an_idle_connection_is_usual() -> None:
    noticed, may_send = asyncio.Event(), asyncio.Event()
    script = behind_a_response(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", may_send)
    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        running.pool._on_surplus = noticed.set
        await fill(running, 1)
        may_send.set()
        await until(lambda: running.pool._idle[0].state is UpstreamConnectionState.CLOSED)
        assert not noticed.is_set()
        assert not running.pool.per_caller


async def test_idle_connections_of_many_callers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_MOST_IDLE_PER_CALLER", 3)
    async with RawUpstream(responding(ok(), ok())) as upstream, running_client(upstream.origin) as running:
        running.pool.per_caller = True
        for number in range(6):
            await running.fetch(replace(request(), caller=str(number)))
        assert (running.pool.idle, upstream.accepted) == (3, 6)
        await running.fetch(replace(request(), caller="5"))
        assert upstream.accepted == 6


# --- what the connections show of the upstream ---------------------------------------------------------------


def _kind(running: RunningClient, later_s: float) -> str | None:
    finding = running.client.judge_upstream(asyncio.get_running_loop().time() + later_s)
    return None if finding is None else finding.kind


async def test_a_request_without_a_response_makes_the_upstream_silent() -> None:
    async with RawUpstream(responding(ok())) as upstream, running_client(upstream.origin) as running:
        await running.fetch(request())
        assert _kind(running, 60) is None
    async with RawUpstream(responding()) as upstream, running_client(upstream.origin) as running:
        waiting = asyncio.create_task(running.fetch(request()))
        await until(lambda: any(connection.owes_a_byte for connection in running.pool._connections))
        assert [_kind(running, later_s) for later_s in (5, 20)] == [None, "silent"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert _kind(running, 20) == "quiet"  # still, nothing has come


async def test_a_post_is_overdue_shortly_before_the_client_gives_it_up() -> None:
    async with (
        RawUpstream(responding()) as upstream,
        running_client(upstream.origin, first_byte_timeout_s=200.0) as running,
    ):
        waiting = asyncio.create_task(running.fetch(request("POST")))
        await until(lambda: any(connection.owes_a_byte for connection in running.pool._connections))
        assert [_kind(running, later_s) for later_s in (100, 197)] == ["quiet", "silent"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_response_that_stops_after_its_head_makes_the_upstream_silent() -> None:
    whole = ok(b"hello")
    async with RawUpstream(responding(whole[:-2])) as upstream, running_client(upstream.origin) as running:
        exchange = await running.client.send(request())
        assert _kind(running, 20) is None  # nothing has tried to read the rest
        waiting = asyncio.create_task(running.read_response(exchange))
        await until(lambda: exchange[0].owes_a_byte)
        assert [_kind(running, later_s) for later_s in (5, 20)] == [None, "silent"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("fields", [(), (b"Connection: close",)])
async def test_one_that_responds_elsewhere_is_not_silent(fields: tuple[bytes, ...]) -> None:
    async with (
        RawUpstream(responding(), responding(ok(b"ok", *fields))) as upstream,
        running_client(upstream.origin) as running,
    ):
        waiting = asyncio.create_task(running.fetch(request()))
        await until(lambda: upstream.accepted == 1)
        await running.fetch(request())
        heard_at_s = asyncio.get_running_loop().time()
        finding = running.client.judge_upstream(heard_at_s + 7)
        assert finding is None
        assert _kind(running, 30) == "silent"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_the_times_of_responses_are_learned_also_if_their_bodies_come_later() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(ok(b"hello")[:-3])
            await asyncio.sleep(0)
            await peer.send(b"llo")

    async with RawUpstream(script) as upstream, running_client(upstream.origin) as running:
        running.pool._sample_at_s = 0.0
        await running.fetch(request())
        ((route, times),) = running.pool._watch._routes.items()
        assert route == ("GET", "")
        assert sum(times.weights) == times.weights[0] == 1


async def test_of_many_responses_at_once_a_sample_is_learned() -> None:
    async with RawUpstream(responding(*[ok()] * 100)) as upstream, running_client(upstream.origin) as running:
        for _ in range(100):
            await running.fetch(request())
        (times,) = running.pool._watch._routes.values()
        assert 20 <= sum(times.weights) < 100


async def test_a_connection_that_cannot_be_made_is_named_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async with RawUpstream(responding()) as upstream, running_client(upstream.origin) as running:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        waiting = asyncio.create_task(running.fetch(request()))
        await until(lambda: bool(running.dialer.dialing()))
        assert _kind(running, 3) is None
        finding = running.client.judge_upstream(asyncio.get_running_loop().time() + 5)
        assert finding is not None
        assert finding.sentence.startswith(
            "Nanonets cannot be reached: the look-up of the upstream's name has taken"
        )
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert running.dialer.dialing() == []
