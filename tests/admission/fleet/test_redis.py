"""The bus and whole proxies over a real Redis (`make test-fleet`)."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet.redis_server import RedisServer, redis_server
from nanonets_proxy.admission.fleet.bus import redis_bus
from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.client import may_have_moved
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, BusError, CoordinationUnusable
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support import eventually
from support.commands.fleet_proxies import (
    PASSWORD,
    PATH,
    RIGHTS,
    Callers,
    coordinated,
    fleet,
    gauge,
    make_user,
    ready,
    until,
)
from support.commands.process import ANY_PORTS, Running, environment, running

pytestmark = pytest.mark.system

NAMED = ("--caller-header", "X-Caller")


@pytest.fixture(autouse=True)
def _long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the lease of a bus in this process outlast pauses of a busy machine."""
    monkeypatch.setattr(redis_bus, "_LEASE_MS", 60_000)


def policy(url: str, account: str = "a") -> FleetPolicy:
    return FleetPolicy(RedisAddress.parse(url), account, required=False)


class Peer:
    """One bus, and what it has heard."""

    def __init__(self, url: str, name: str, account: str = "a") -> None:
        self.bus = RedisBus(policy(url, account), name)
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.unheard: list[str] = []

    async def connected(self) -> None:
        await eventually.until(lambda: self.bus.connected)


@asynccontextmanager
async def peers(url: str, *names: str, account: str = "a") -> AsyncIterator[list[Peer]]:
    made = [Peer(url, name, account) for name in names]
    for peer in made:
        peer.bus.start(peer.heard.append, peer.lost.append, peer.unheard.append)
    try:
        for peer in made:
            await peer.connected()
        yield made
    finally:
        for peer in made:
            await peer.bus.stop()


# --- the bus ----------------------------------------------------------------------------------------


async def test_messages_reach_one_replica_or_all_in_order(redis: RedisServer) -> None:
    async with peers(redis.url, "a", "b", "c") as (a, b, c):
        for number in range(200):
            a.bus.send("b", b"%d" % number)
        a.bus.send(EVERYBODY, b"all")
        await eventually.until(lambda: len(b.heard) == 201 and c.heard == [b"all"] and a.heard == [b"all"])
        assert b.heard == [*(b"%d" % number for number in range(200)), b"all"]


async def test_a_message_to_a_replica_that_has_gone_is_known_to_be_unheard(redis: RedisServer) -> None:
    async with peers(redis.url, "a") as (a,):
        async with peers(redis.url, "b"):
            a.bus.send("b", b"1")
            await eventually.until(lambda: not a.bus.is_sending)
            assert a.unheard == []
        # Redis 6.0 counts a connection until 0.1 s after its end.
        await eventually.until(lambda: b":to:b" not in redis.ask("PUBSUB", "CHANNELS"))
        a.bus.send("b", b"2")
        a.bus.send(EVERYBODY, b"3")
        await eventually.until(lambda: a.heard == [b"3"] and a.unheard == ["b"])


async def test_only_one_replica_holds_the_lease_and_epochs_grow(redis: RedisServer) -> None:
    async with peers(redis.url, "a", "b") as (a, b):
        first = await a.bus.campaign(0)
        assert first is not None
        assert await b.bus.campaign(0) is None
        assert await a.bus.renew(first.epoch, 1, b"beat", None) == 0
        assert await b.bus.renew(first.epoch + 1, 1, b"beat", None) is None
        await eventually.until(lambda: a.heard == b.heard == [b"beat"])
        await a.bus.resign(first.epoch)
        second = await b.bus.campaign(first.epoch + 10**6)
        assert second is not None
        assert second.epoch == first.epoch + 10**6 + 1
        assert await a.bus.renew(first.epoch, 1, b"late", None) is None
        await a.bus.resign(first.epoch)  # of an earlier holder: without effect
        assert await b.bus.renew(second.epoch, 1, b"beat", None) == 0


async def test_the_lease_of_a_silent_holder_expires(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_bus, "_LEASE_MS", 1000)
    async with peers(redis.url, "a", "b") as (a, b):
        began_s = time.monotonic()
        assert await a.bus.campaign(0) is not None
        while await b.bus.campaign(0) is None:  # noqa: ASYNC110 - Redis decides when
            await asyncio.sleep(0.02)
        assert time.monotonic() - began_s > 0.99


async def test_kept_beliefs_come_back_with_their_age(redis: RedisServer) -> None:
    async with peers(redis.url, "a", "b") as (a, b):
        won = await a.bus.campaign(0)
        assert won is not None
        assert won.kept == b""
        assert await a.bus.renew(won.epoch, 1, b"beat", b'{"x":1}') == 0
        await a.bus.resign(won.epoch)
        await asyncio.sleep(0.05)
        later = await b.bus.campaign(won.epoch)
        assert later is not None
        assert later.kept == b'{"x":1}'
        assert 0.04 < later.kept_age_s < 60


async def test_a_wiped_redis_and_forgotten_scripts_change_nothing(redis: RedisServer) -> None:
    async with peers(redis.url, "a", "b") as (a, b):
        won = await a.bus.campaign(0)
        assert won is not None
        redis.ask("FLUSHALL")
        redis.ask("SCRIPT", "FLUSH")
        assert await a.bus.renew(won.epoch, 1, b"beat", None) == 0
        assert await b.bus.campaign(0) is None


async def test_a_full_redis_still_renews_the_lease(redis: RedisServer) -> None:
    async with peers(redis.url, "a", "b") as (a, b):
        won = await a.bus.campaign(0)
        assert won is not None
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        assert await a.bus.renew(won.epoch, 1, b"beat", b"kept") == 0
        await eventually.until(lambda: b.heard == [b"beat"])
        await a.bus.resign(won.epoch)
        assert await b.bus.campaign(0) is not None


async def test_a_read_only_redis_gives_no_lease(redis: RedisServer) -> None:
    async with peers(redis.url, "a") as (a,):
        redis.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BusError, match="read only replica"):
            await a.bus.campaign(0)
        await eventually.until(lambda: len(a.lost) == 1)  # it looks for the server again


def test_redis_6_quotes_the_error_of_a_read_only_server() -> None:
    from redis.exceptions import ResponseError  # only `make test-fleet` has the library

    quoted = "Error running script (call to f_4b): @user_script:38: @user_script: 38: "
    assert may_have_moved(ResponseError(f"{quoted}-READONLY You can't write against a read only replica."))
    assert not may_have_moved(ResponseError(f"{quoted}-OOM command not allowed"))


async def test_a_lost_connection_is_noticed_and_comes_back(redis: RedisServer) -> None:
    async with peers(redis.url, "a") as (a,):
        redis.kill()
        await eventually.until(lambda: len(a.lost) == 1)
        assert not a.bus.connected
        with pytest.raises(BusError):
            await a.bus.campaign(0)
        redis.start()
        await a.connected()
        assert await a.bus.campaign(0) is not None


async def test_fleets_of_two_accounts_do_not_meet(redis: RedisServer) -> None:
    async with peers(redis.url, "a") as (a,), peers(redis.url, "b", account="other") as (b,):
        assert await a.bus.campaign(0) is not None
        assert await b.bus.campaign(0) is not None
        a.bus.send(EVERYBODY, b"x")
        await eventually.until(lambda: a.heard == [b"x"])
        assert b.heard == []


async def test_the_documented_rights_suffice() -> None:
    with redis_server() as redis:
        make_user(redis, *RIGHTS.split())
        url = f"redis://proxy:{PASSWORD}@127.0.0.1:{redis.port}/0"
        assert await check(policy(url)) is None
        async with peers(url, "a") as (a,):
            won = await a.bus.campaign(0)
            assert won is not None
            assert await a.bus.renew(won.epoch, 1, b"beat", b"kept") == 0
            await eventually.until(lambda: a.heard == [b"beat"])
            await a.bus.resign(won.epoch)


async def test_a_wrong_password_is_unusable_and_not_shown() -> None:
    with redis_server(PASSWORD) as redis:
        with pytest.raises(CoordinationUnusable, match="refuses the login") as caught:
            await check(policy(f"redis://:s3cret@127.0.0.1:{redis.port}"))
        assert "s3cret" not in str(caught.value)
        assert await check(policy(redis.url)) is None


async def test_a_server_that_is_away_may_come_back() -> None:
    with redis_server() as redis:
        url = redis.url
    assert "cannot be reached" in str(await check(policy(url)))


# --- whole proxies --------------------------------------------------------------------------------------


def status(proxy: Running) -> dict[str, Any]:
    with urllib.request.urlopen(f"{proxy.admin_url}/status", timeout=60) as response:
        document: dict[str, Any] = json.load(response)
    return document


def fleet_status(proxy: Running) -> dict[str, Any]:
    found: dict[str, Any] = status(proxy)["environments"][0]["gate"]["fleet"]
    return found


@pytest.mark.parametrize("fault", ["SIGSTOP", "SIGKILL", "FLUSHALL"])
def test_no_caller_fails_when_redis_does(redis: RedisServer, fault: str) -> None:
    with fleet(redis, 3, *NAMED) as proxies:
        with Callers(proxies, 3) as callers:
            time.sleep(3)
            if fault == "SIGSTOP":
                redis.signal(signal.SIGSTOP)
                time.sleep(2)
                redis.signal(signal.SIGCONT)
            elif fault == "SIGKILL":
                redis.kill()
                time.sleep(2)
                redis.start()
            else:
                redis.ask("FLUSHALL")
            time.sleep(4)
        assert set(callers.statuses) == {200}
        until(lambda: coordinated(proxies))
        assert [gauge(proxy, "nanonets_proxy_fleet_replicas") for proxy in proxies] == [3, 3, 3]


def test_another_replica_leads_when_the_leader_is_killed(redis: RedisServer) -> None:
    with fleet(redis, 3, *NAMED) as proxies:
        until(lambda: coordinated(proxies))
        name = redis.ask("KEYS", "nanonets-proxy:*:lease").split()[-1].decode()
        before = redis.ask("GET", name)
        leader = next(proxy for proxy in proxies if fleet_status(proxy)["role"] == "leads")
        leader.process.kill()
        others = [proxy for proxy in proxies if proxy is not leader]
        with Callers(others, 2) as callers:
            until(lambda: len(redis.ask("GET", name)) > 10 and redis.ask("GET", name) != before)
            until(lambda: coordinated(others))
        assert set(callers.statuses) == {200}


def test_a_required_coordination_that_is_lost_makes_a_replica_unready(redis: RedisServer) -> None:
    with fleet(redis, 1, "--coordination-required") as (proxy,):
        until(lambda: ready(proxy)[0] == 200)
        redis.kill()
        until(lambda: ready(proxy)[0] == 503)
        assert "no_coordination" in ready(proxy)[1]
        with urllib.request.urlopen(proxy.url + PATH, timeout=60) as response:
            assert response.status == 200
        redis.start()
        until(lambda: ready(proxy)[0] == 200)
        proxy.wait_for("fleet_alone")


def test_a_proxy_starts_alone_while_redis_is_away_and_joins_later(redis: RedisServer) -> None:
    redis.kill()
    with fleet(redis, 1) as (proxy,):
        assert "cannot be reached" in proxy.wait_for("fleet_alone")["reason"]
        assert gauge(proxy, "nanonets_proxy_fleet_coordinated") == 0
        redis.start()
        until(lambda: coordinated([proxy]))


def test_a_wrong_password_is_an_error_at_start() -> None:
    with redis_server(PASSWORD) as redis:
        arguments = ["serve", *ANY_PORTS, "--upstream", "http://127.0.0.1:1"]
        url = f"redis://:s3cret@127.0.0.1:{redis.port}"
        env = environment(NANONETS_API_KEY="sandbox-test-key", NANONETS_PROXY_COORDINATION=url)
        with running(arguments, env) as proxy:
            assert proxy.process.wait(60) == 2
        assert b"coordination: " in proxy.stderr
        assert b"s3cret" not in proxy.stderr + proxy.stdout


def test_nothing_in_redis_names_a_scope_a_caller_or_the_key(redis: RedisServer) -> None:
    with fleet(redis, 2, *NAMED, limit="5/1s") as proxies:
        seen: list[bytes] = []

        def listen() -> None:
            with socket.create_connection(("127.0.0.1", redis.port)) as sock:
                sock.settimeout(0.2)
                sock.sendall(b"MONITOR\r\n")
                ends_s = time.monotonic() + 6
                while time.monotonic() < ends_s:
                    try:
                        seen.append(sock.recv(65536))
                    except TimeoutError:
                        continue

        listener = threading.Thread(target=listen)
        listener.start()
        with Callers(proxies, 4) as callers:
            time.sleep(5)
        listener.join()
        assert set(callers.statuses) == {200}
    traffic = b"".join(seen)
    assert b"beliefs" in traffic
    assert b"ask" in traffic
    for secret in (b"account", b"r0c0", b"r1c1", b"workflows", b"sandbox-test-key"):
        assert secret not in traffic


def test_the_status_says_who_leads(redis: RedisServer) -> None:
    with fleet(redis, 2) as proxies:
        until(lambda: coordinated(proxies))

        def fleets() -> list[dict[str, Any]]:
            return [fleet_status(proxy) for proxy in proxies]

        assert sorted(each["role"] for each in fleets()) == ["follows", "leads"]
        until(lambda: {each["replicas"] for each in fleets()} == {2})  # a new follower learns of others by a beat
        redis.kill()
        until(lambda: not coordinated(proxies))
        (first, second) = (fleet_status(proxy) for proxy in proxies)
        assert first == second == {"role": "alone", "replicas": 2}


def test_the_status_of_a_follower_has_its_own_queue(redis: RedisServer) -> None:
    with fleet(redis, 2, *NAMED, "--limits", "account 1/60s", "--pool-size", "7") as proxies:
        until(lambda: coordinated(proxies))
        follower, leader = sorted(proxies, key=lambda proxy: str(fleet_status(proxy)["role"]))

        def gate(proxy: Running) -> dict[str, Any]:
            found: dict[str, Any] = status(proxy)["environments"][0]["gate"]
            return found

        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                pool.submit(_call_for_a_while, follower.url + PATH, f"c{number % 2}")
            # A follower's queue has a request some ms before the leader hears of it.
            until(lambda: gate(follower)["waiting"] == 3 and gate(leader)["lanes_total"] == 2)
            own, leading = (status(proxy)["environments"][0] for proxy in (follower, leader))
    assert own["state"]["sentence"] == (
        "Waiting for Nanonets: 2 callers with 3 requests, the leader of the fleet grants the next permit."
    )
    assert sorted(lane["caller"] for lane in own["gate"]["lanes"]) == ["c0", "c1"]
    assert sum(lane["waiting"] for lane in own["gate"]["lanes"]) == 3
    assert [each["gate"]["max_in_flight"] for each in (own, leading)] == [7, 7]
    assert (leading["gate"]["waiting"], leading["gate"]["lanes_total"]) == (0, 2)


def _call_for_a_while(url: str, caller: str) -> None:
    """Hangs up after 15 s."""
    request = urllib.request.Request(url, headers={"X-Caller": caller})
    with contextlib.suppress(TimeoutError), urllib.request.urlopen(request, timeout=15) as response:
        response.read()


def test_the_status_shows_the_scopes_by_their_names(redis: RedisServer) -> None:
    with fleet(redis, 2, *NAMED, limit="5/1s") as proxies, Callers(proxies, 3):
        for proxy in proxies:

            def names(proxy: Running = proxy) -> bool:
                return "account" in json.dumps(status(proxy))

            until(names)
