"""The limits on callers' connections."""

import asyncio
import json
import math
import resource
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.access import connection_policy
from nanonets_proxy.core.access.caller_names import name_of_address
from nanonets_proxy.errors import TooManyConnections
from nanonets_proxy.server import connection_limits
from nanonets_proxy.server.connection_limits import REJECTION, ConnectionLimits, ConnectionPolicy
from nanonets_proxy.server.open_files import last_file, most_admin_connections, most_connections, most_forwarded
from nanonets_proxy.server.peers import Peer
from nanonets_proxy.telemetry.alerts import Alerts
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy, serve_config
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream, responding


async def test_a_connection_beyond_the_limit_closes_the_oldest_idle_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_limits, "PATIENCE_S", 0.0)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        await callers[0].send(request(b"GET", b"/slow"))
        exchange = await upstream.next_request()
        await callers[2].send(b"GET /half-open HTTP/1.1\r\n")
        await until(lambda: any(each._reader.kept for each in proxy.connections))
        async with await proxy.caller() as newcomer:
            await newcomer.send(request(b"GET", b"/x"))
            await (await upstream.next_request()).respond(OK)
            assert (await newcomer.response()).status == 200
        await exchange.respond(OK)
        assert (await callers[0].response()).status == 200, "a connection with a request in flight stays open"
        assert await callers[1].read_to_end() == b""
        assert await callers[2].read_to_end() == b""


async def test_if_all_connections_are_busy_a_new_connection_gets_an_error() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        for caller in callers:
            await caller.send(request(b"GET", b"/slow"))
        exchanges = [await upstream.next_request() for _ in callers]
        async with await proxy.caller() as newcomer:
            response = await newcomer.response()
            code = response.json()["code"]
            assert (response.status, code) == (TooManyConnections.status, TooManyConnections.code)
            assert await newcomer.read_to_end() == b""
        for exchange in exchanges:
            await exchange.respond(OK)
        assert [(await caller.response()).status for caller in callers] == [200] * 16
        await until(lambda: proxy.proxy._server.open_connections == 16)


def connected_together(proxy: RunningProxy, count: int) -> list[socket.socket]:
    """Connects callers while the event loop does not run, so that the proxy accepts all of them at once."""
    host, _, port = proxy.address.rpartition(":")
    return [socket.create_connection((host, int(port))) for _ in range(count)]


async def test_of_too_many_callers_that_arrive_together_each_gets_its_response_or_a_503() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
    ):
        together = connected_together(proxy, 60)
        for sock in together:
            sock.sendall(request(b"GET", b"/x"))
            sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        exchanges = [await upstream.next_request() for _ in range(16)]
        loop = asyncio.get_running_loop()
        for sock in together[16:]:  # asyncio's streams lose a response that is followed by a reset
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 503 ")
        for exchange in exchanges:
            await exchange.respond(OK)
        for sock in together[:16]:
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
        for sock in together:
            sock.close()


async def test_a_caller_without_a_place_that_still_sends_gets_its_503_whole_and_takes_no_place() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        exchanges = []
        for caller in callers:
            await caller.send(request(b"GET", b"/slow"))
            exchanges.append(await upstream.next_request())
        (sock,) = connected_together(proxy, 1)
        sock.sendall(request(b"POST", b"/x", b"Content-Length: 100000"))
        async with RawCaller(*await asyncio.open_connection(sock=sock)) as newcomer:
            for _ in range(4):
                await newcomer.send(bytes(1000))
                await asyncio.sleep(0)
            assert (await newcomer.response()).status == 503
            assert await newcomer.read_to_end() == b""
            await exchanges[0].respond(OK)
            assert (await callers[0].response()).status == 200
            callers[0].close()
            await until(lambda: proxy.proxy._server.open_connections <= 16)
            async with await proxy.caller() as later:
                await later.send(request(b"GET", b"/later"))
                await (await upstream.next_request()).respond(OK)
                assert (await later.response()).status == 200
        for exchange in exchanges[1:]:
            await exchange.respond(OK)


async def test_callers_that_arrive_together_and_send_nothing_displace_different_connections() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        await until(lambda: proxy.proxy._server.open_connections == 16)
        together = connected_together(proxy, 10)
        for caller in callers[:10]:
            assert await caller.read_to_end() == b""
        await until(lambda: proxy.proxy._server.open_connections == 16)
        for caller in callers[10:]:
            assert (await caller.get(b"/x")).status == 200
        for sock in together:
            sock.close()


def test_the_error_for_a_new_connection_has_a_correct_length() -> None:
    head, _, body = REJECTION.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body)["code"] == "too_many_connections"


# --- from one address -----------------------------------------------------------------------------


class Connection:
    """The part of a connection that the limits use."""

    def __init__(
        self,
        address: str | None,
        *,
        is_idle: bool,
        is_fresh: bool,
        is_stalled: bool,
        close: Callable[["Connection"], None],
    ) -> None:
        self.looks = 0
        """How often the limits have looked at it."""
        self._peer = Peer("unknown" if address == "unknown" else name_of_address(address or "::1"), address)
        self.is_idle = is_idle
        self.idle_since_s = 99.5 if is_fresh else 99.0
        self.awaits_body = not is_idle and is_fresh
        self.stalled_since_s = 99.0 if is_stalled else math.inf
        self.is_unread = False
        self._close = close

    @property
    def peer(self) -> Peer:
        self.looks += 1
        return self._peer

    @property
    def is_idle(self) -> bool:
        self.looks += 1
        return self._is_idle

    @is_idle.setter
    def is_idle(self, is_idle: bool) -> None:
        self._is_idle = is_idle

    def has_unread_bytes(self) -> bool:
        return self.is_unread

    def displace(self) -> None:
        assert self.is_idle
        self._close(self)

    def give_up(self) -> None:
        assert not self.is_idle
        self._close(self)


class Listener:
    """A listener that counts connections as the server does."""

    def __init__(self, most: int, most_per_peer: int) -> None:
        self.open: list[Connection] = []
        self.now_s = 100.0
        policy = ConnectionPolicy(most, most_per_peer, keep_alive_s=60.0, head_timeout_s=60.0, last_file=1000)
        self.alerts = Alerts(CollectorRegistry())
        self.limits = ConnectionLimits(
            policy, CollectorRegistry(), lambda: list(self.open), self.alerts, lambda: self.now_s
        )

    def connect(
        self,
        address: str | None,
        *,
        is_idle: bool = True,
        is_fresh: bool = False,
        is_stalled: bool = False,
        file: int = 0,
    ) -> bool:
        newcomer = Connection(address, is_idle=is_idle, is_fresh=is_fresh, is_stalled=is_stalled, close=self.close)
        self.open.append(newcomer)
        taken = self.limits.take(newcomer, file)
        if not taken:
            self.close(newcomer)
        return taken

    def close(self, connection: Connection) -> None:
        self.open.remove(connection)
        self.limits.give_back(connection)

    def count(self, address: str | None) -> int:
        return sum(connection.peer.address == address for connection in self.open)


def test_one_address_cannot_displace_the_connections_of_others() -> None:
    listener = Listener(100, 2)
    assert listener.connect("192.0.2.2")
    assert all(listener.connect("192.0.2.1") for _ in range(5))
    assert (listener.count("192.0.2.1"), listener.count("192.0.2.2")) == (2, 1)
    assert not all(listener.connect("192.0.2.3", is_idle=False) for _ in range(3))


def test_if_all_connections_are_busy_a_stalled_upload_of_the_same_limit_makes_room() -> None:
    listener = Listener(4, 2)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        assert listener.connect(address, is_idle=False, is_stalled=True)
    assert listener.connect("192.0.2.2", is_idle=False)
    assert listener.connect("192.0.2.2", is_idle=False), "the limit per address"
    assert (listener.count("192.0.2.1"), listener.count("192.0.2.2")) == (2, 2)
    assert listener.connect("192.0.2.3"), "the total limit"
    assert (listener.count("192.0.2.1"), listener.count("192.0.2.3")) == (1, 1), "one makes room, the oldest"
    assert listener.connect("192.0.2.4", is_idle=False), "an idle connection makes room before a stalled one"
    assert (listener.count("192.0.2.1"), listener.count("192.0.2.3")) == (1, 0)
    assert listener.connect("192.0.2.5", is_idle=False)
    assert not listener.connect("192.0.2.6", is_idle=False)


def test_a_stalled_upload_makes_room_before_a_connection_whose_request_may_be_on_its_way() -> None:
    listener = Listener(3, 100)
    assert listener.connect("192.0.2.1", is_fresh=True)
    assert listener.connect("192.0.2.2", is_idle=False, is_stalled=True)
    assert listener.connect("192.0.2.3")
    for gone in ("192.0.2.3", "192.0.2.2", "192.0.2.1"):
        assert listener.connect("192.0.2.4", is_idle=False)
        assert not listener.count(gone)


def test_an_upload_that_has_not_begun_makes_room_last() -> None:
    listener = Listener(3, 100)
    assert listener.connect("192.0.2.1", is_idle=False, is_fresh=True)
    assert listener.connect("192.0.2.2", is_idle=False, is_stalled=True)
    assert listener.connect("192.0.2.3", is_fresh=True)
    for gone in ("192.0.2.2", "192.0.2.1", "192.0.2.3"):
        assert listener.connect("192.0.2.4", is_idle=False)
        assert not listener.count(gone)
    assert not listener.connect("192.0.2.4", is_idle=False)


@pytest.mark.parametrize(("fresh", "closed"), [(10, 1), (64, 3), (10_000, 32)])
def test_of_fresh_connections_only_some_make_room(fresh: int, closed: int) -> None:
    listener = Listener(fresh, 100_000)
    assert all(listener.connect("192.0.2.1", is_fresh=True) for _ in range(fresh + 1))
    assert len(listener.open) == fresh + 1 - closed


def test_a_connection_whose_bytes_have_arrived_does_not_make_room() -> None:
    listener = Listener(most=2, most_per_peer=2)
    for _ in range(2):
        assert listener.connect(None, is_fresh=True)
        listener.open[-1].is_unread = True
    assert not listener.connect(None)
    listener.open[1].is_unread = False
    listener.now_s += 0.001
    assert listener.connect(None)
    assert [connection.is_unread for connection in listener.open] == [True, False]


def test_a_connection_that_is_not_lost_yet_makes_room_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    displaced: list[Connection] = []
    monkeypatch.setattr(Connection, "displace", lambda connection: displaced.append(connection))
    listener = Listener(most=4, most_per_peer=4)
    for _ in range(8):
        assert listener.connect("192.0.2.1", is_fresh=True)
    assert displaced == listener.open[:4]
    assert listener.limits._open == 4
    for connection in list(listener.open):
        listener.close(connection)
    assert (listener.limits._open, listener.limits._displaced, listener.limits._per_peer) == (0, set(), {})


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1"])
def test_newcomers_that_find_no_room_seldom_cost_a_walk_over_all_connections(address: str) -> None:
    listener = Listener(most=1000, most_per_peer=1000)
    assert all(listener.connect(address, is_idle=False) for _ in range(1000))
    for _ in range(100):
        assert not listener.connect(address, is_idle=False)
        listener.now_s += 0.001
    assert listener.open[0].looks <= 2 + 11, "each walk takes more than a millisecond"
    listener.open[0].is_idle = True
    listener.now_s += 0.1
    assert listener.connect(address), "room is found all the same"


def test_an_address_at_its_limit_costs_no_look_at_the_connections_of_others() -> None:
    listener = Listener(most=1000, most_per_peer=2)
    assert all(listener.connect(f"192.0.2.{host}", is_idle=False) for host in range(2, 250))
    others, looks = list(listener.open), [each.looks for each in listener.open]
    assert all(listener.connect("192.0.2.1") for _ in range(100))
    assert [each.looks for each in others] == looks
    assert listener.count("192.0.2.1") == 2


def test_an_address_that_finds_no_room_does_not_keep_others_from_looking_for_room() -> None:
    listener = Listener(most=100, most_per_peer=2)
    assert all(listener.connect("192.0.2.1", is_idle=False) for _ in range(2))
    assert all(listener.connect("192.0.2.2") for _ in range(2))
    assert not listener.connect("192.0.2.1")
    assert listener.connect("192.0.2.2")


def test_an_address_that_found_no_room_takes_no_memory_after_its_last_connection() -> None:
    listener = Listener(most=100, most_per_peer=2)
    assert [listener.connect("192.0.2.1", is_idle=False) for _ in range(3)] == [True, True, False]
    assert listener.limits._next_walk_s
    for connection in list(listener.open):
        listener.close(connection)
    assert not listener.limits._next_walk_s


def test_an_ipv6_host_does_not_get_a_limit_for_each_of_its_addresses() -> None:
    listener = Listener(100, 2)
    assert listener.connect("2001:db8:0:1::1", is_idle=False)
    assert all(listener.connect(f"2001:db8::{host}") for host in range(1, 6))
    assert len(listener.open) == 3
    assert listener.connect("2001:db8::a", is_idle=False)
    assert listener.connect("2001:db8::b", is_idle=False)
    assert not listener.connect("2001:db8::c", is_idle=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", None])
def test_loopback_addresses_have_no_limit_per_address(address: str | None) -> None:
    listener = Listener(100, 2)
    assert all(listener.connect(address, is_idle=False) for _ in range(50))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["192.0.2.1", "192.0.2.2", "127.0.0.1", "unknown", None]), st.booleans(), st.booleans()
        )
    ),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_no_limit_is_ever_exceeded(
    arrivals: list[tuple[str | None, bool, bool]], most: int, most_per_peer: int
) -> None:
    listener = Listener(most, most_per_peer)
    for address, is_idle, is_stalled in arrivals:
        listener.connect(address, is_idle=is_idle, is_stalled=is_stalled and not is_idle)
        assert len(listener.open) <= most
        assert all(listener.count(a) <= most_per_peer for a in ("192.0.2.1", "192.0.2.2", "unknown"))
    for connection in list(listener.open):
        listener.close(connection)
    assert not listener.limits._per_peer
    assert listener.limits._open == 0


async def test_the_gauge_counts_open_connections() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy, proxy.callers(3):
        await until(lambda: proxy.proxy.gauges()["nanonets_proxy_caller_connections"] == 3)


async def test_a_slow_body_ends_at_the_body_timeout() -> None:
    """Each byte arrives within `idle_timeout`, but the body exceeds `body_timeout`. The permit is settled."""
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, body_timeout="200ms") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        response = asyncio.create_task(caller.response())
        while not response.done():
            caller.writer.write(b"x")
            await asyncio.sleep(0.02)
        assert (response.result().status, response.result().json()["code"]) == (408, "request_timeout")
        await proxy.check_idle()


def test_the_connection_limit_respects_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def most(files: int, **given: object) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
        return connection_policy(serve_config(**given).environments[0]).max_connections

    assert most(100_000) == 12_000
    assert most(resource.RLIM_INFINITY) == 12_000
    viewers = 4096 // 32
    assert most(4096, pool_size=256) == 4096 - 4 * 256 - 128 - viewers, "in flight and paused, each with two files"
    assert most(256, pool_size=256) == (256 - 71 - 8) // 3, "each may need one upstream and one spool file"
    assert most(4096, pool_size=256, jobs="/jobs") == (4096 - 5 * 256 - 128 - viewers) // 2, (
        "each with a job's file"
    )
    assert most(20) == 2


@given(st.integers(64, 100_000), st.integers(1, 16_384), st.integers(1, 5), st.booleans())
def test_all_environments_at_their_limits_fit_into_the_open_files(
    files: int, pool: int, environments: int, has_jobs: bool
) -> None:
    connections = most_connections(12_000, pool, files, environments, has_jobs=has_jobs)
    forwarded = min(most_forwarded(pool), connections)
    job_files = connections + min(pool, connections) if has_jobs else 0
    needed = environments * (connections + 2 * forwarded + job_files)
    assert connections >= 2
    assert needed + most_admin_connections(files) <= last_file(files) or connections == 2


def test_a_connection_that_would_take_a_spare_file_is_rejected() -> None:
    listener = Listener(100, 100)
    assert listener.connect("127.0.0.1", file=1000)
    assert not listener.connect("127.0.0.1", file=1001)
    (alert,) = listener.alerts.to_json()
    # The older connection was idle and made room.
    assert (alert["event"], alert["limit"], alert["open_connections"]) == ("connections_rejected", "open_files", 1)
    assert "ulimit -n" in alert["advice"]


def test_a_rejection_names_the_limit_that_was_reached() -> None:
    listener = Listener(2, 1)
    assert listener.connect("192.0.2.1", is_idle=False)
    assert not listener.connect("192.0.2.1", is_idle=False)
    assert listener.connect("192.0.2.2", is_idle=False)
    assert not listener.connect("192.0.2.3", is_idle=False)
    limits = [(alert["limit"], alert["value"]) for alert in listener.alerts.to_json()]
    assert sorted(limits) == [("max_connections", 2), ("max_connections_per_peer", 1)]
