"""Faults of a real Redis that is neither dead nor silent: rights, memory, a set clock (`make test-fleet`)."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from fleet.redis_server import RedisServer, redis_server
from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.port import BusError, CoordinationUnusable
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support.commands.fleet_proxies import PASSWORD, RIGHTS, Callers, coordinated, fleet, gauge, make_user, until

pytestmark = pytest.mark.system

DISPENSABLE = ("+unsubscribe", "+select", "+script|load")
"""Connections end without UNSUBSCRIBE, database 0 is the first, and Redis has the scripts after an EVAL."""


def policy(url: str) -> FleetPolicy:
    return FleetPolicy(RedisAddress.parse(url), "a", required=False)


async def connected(url: str, name: str) -> RedisBus:
    bus = RedisBus(policy(url), name)
    bus.start(lambda _: None, lambda _: None, lambda _: None)
    async with asyncio.timeout(30):
        while not bus.connected:  # noqa: ASYNC110 - the server decides when
            await asyncio.sleep(0.01)
    return bus


@pytest.mark.parametrize("right", [right for right in RIGHTS.split() if right not in DISPENSABLE])
async def test_each_missing_right_is_an_error_at_start(right: str) -> None:
    """A replica without it would be alone for ever."""
    with redis_server() as redis:
        rights = [other for other in RIGHTS.split() if other != right]
        make_user(redis, *rights)
        with pytest.raises(CoordinationUnusable, match="right"):
            await check(policy(f"redis://proxy:{PASSWORD}@127.0.0.1:{redis.port}/0"))


async def test_a_full_redis_still_gives_the_lease(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    assert await check(policy(redis.url)) is None
    a, b = await connected(redis.url, "a"), await connected(redis.url, "b")
    try:
        won = await a.campaign(0)
        assert won is not None
        assert await b.campaign(0) is None
        redis.ask("DEL", f"{policy(redis.url).prefix()}:lease")
        assert await a.renew(won.epoch, 1, b"beat", b"kept") == 0
        await a.resign(won.epoch)
        assert await b.campaign(won.epoch) is not None
    finally:
        await a.stop()
        await b.stop()


async def test_a_lease_that_is_older_than_a_known_one_is_void(redis: RedisServer) -> None:
    """After the clock of Redis was set back, a new replica wins a smaller epoch than the others know."""
    a, b = await connected(redis.url, "a"), await connected(redis.url, "b")
    try:
        won = await a.campaign(0)
        assert won is not None
        assert await b.campaign(won.epoch) is None
        later = await b.campaign(won.epoch + 3_600_000)
        assert later is not None
        assert later.epoch == won.epoch + 3_600_001
        assert await a.renew(won.epoch, 1, b"beat", None) is None
        assert await a.campaign(won.epoch) is None
    finally:
        await a.stop()
        await b.stop()


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ([("CONFIG", "SET", "min-replicas-to-write", "1")], "NOREPLICAS"),
        ([("REPLICAOF", "127.0.0.1", "1")], "read only replica"),
    ],
)
async def test_a_server_that_takes_no_writes_now_may_take_them_later(
    redis: RedisServer, commands: list[tuple[str, ...]], reason: str
) -> None:
    for command in commands:
        redis.ask(*command)
    assert reason in str(await check(policy(redis.url)))


async def test_a_server_that_stays_read_only_is_not_asked_again_and_again(redis: RedisServer) -> None:
    bus = await connected(redis.url, "a")
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        before, began_s = _connections(redis), time.monotonic()
        while time.monotonic() - began_s < 5.0:
            if bus.connected:
                with pytest.raises(BusError):
                    await bus.campaign(0)
            await asyncio.sleep(0.02)
        assert _connections(redis) - before < 60  # two each time, and a few pauses shorter than 0.4 s
    finally:
        await bus.stop()


async def test_a_bus_stops_at_each_moment_of_its_start(redis: RedisServer) -> None:
    """Redis-py may ignore that a task is cancelled, if it sends a command with a time limit of its own."""
    steps, is_connected = 0, False
    while not is_connected:
        bus = RedisBus(policy(redis.url), "a")
        bus.start(lambda _: None, lambda _: None, lambda _: None)
        for _ in range(steps):
            await asyncio.sleep(0)
        is_connected = bus.connected
        stopping = asyncio.ensure_future(bus.stop())
        await asyncio.wait([stopping], timeout=30)
        assert stopping.done()
        steps += 1


def _connections(redis: RedisServer) -> int:
    answer = redis.ask("INFO", "stats").decode()
    return int(answer.split("total_connections_received:")[1].split()[0])


def test_no_caller_fails_while_redis_is_full_and_its_leader_dies(redis: RedisServer) -> None:
    with fleet(redis, 3, "--caller-header", "X-Caller") as proxies:
        until(lambda: coordinated(proxies))
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        leader = next(p for p in proxies if any(e.get("role") == "leader" for e in p.all_events()))
        others = [proxy for proxy in proxies if proxy is not leader]
        with Callers(others, 3) as callers:
            leader.process.kill()
            until(lambda: coordinated(others) and gauge(others[0], "nanonets_proxy_fleet_replicas") == 2)
        assert set(callers.statuses) == {200}


def test_the_log_has_the_new_reason_when_the_password_changes(redis: RedisServer) -> None:
    """The connection ends first, which alone would send an operator to the network."""
    make_user(redis, *RIGHTS.split())
    with fleet(f"redis://proxy:{PASSWORD}@127.0.0.1:{redis.port}", 1) as (proxy,):
        until(lambda: coordinated([proxy]))
        redis.ask("ACL", "SETUSER", "proxy", "resetpass", ">another")
        redis.ask("CLIENT", "KILL", "USER", "proxy")
        until(lambda: any("AUTH: WRONGPASS" in event.get("reason", "") for event in proxy.all_events()))
        redis.ask("ACL", "SETUSER", "proxy", f">{PASSWORD}")
        until(lambda: coordinated([proxy]))
    assert "another" not in str(proxy.all_events())


def test_a_redis_that_refuses_each_message_does_not_fill_the_log(redis: RedisServer) -> None:
    make_user(redis, *RIGHTS.split())
    with fleet(f"redis://proxy:{PASSWORD}@127.0.0.1:{redis.port}", 2, limit="1000/1s") as proxies:
        until(lambda: coordinated(proxies))
        redis.ask("ACL", "SETUSER", "proxy", "-publish")
        with Callers(proxies, 2) as callers:
            until(lambda: not coordinated(proxies))
            time.sleep(3)
        assert set(callers.statuses) == {200}
        for proxy in proxies:
            names = Counter(event["event"] for event in proxy.all_events() if event["event"] != "request")
            assert names["fleet_message_lost"] <= 1
            assert names["fleet_alone"] + names["fleet_joined"] <= 25, names
        assert "PUBLISH: NOPERM" in str([proxy.all_events() for proxy in proxies])


async def test_a_replica_asks_for_nothing_that_its_user_may_not_do(redis: RedisServer) -> None:
    """Redis keeps each refused command for the people who watch it."""
    make_user(redis, *RIGHTS.split())
    url = f"redis://proxy:{PASSWORD}@127.0.0.1:{redis.port}/1"
    assert await check(policy(url)) is None
    await (await connected(url, "a")).stop()
    assert redis.ask("ACL", "LOG") == b"*0\r\n"


def test_the_page_lists_the_rights_that_the_tests_use() -> None:
    page = (Path(__file__).parents[3] / "docs" / "fleet.md").read_text()
    assert f"ACL SETUSER proxy on >PASSWORD {RIGHTS}\n" in page
