"""The scripts in Redis, whatever other programs have written to their keys."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fleet.redis_server import RedisServer
from nanonets_proxy.admission.fleet.bus.port import EpochVoid, Won
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.admission.fleet.bus.scripts import keys
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import PROTOCOL, FleetPolicy
from support import eventually
from support.commands.fleet_proxies import Callers, coordinated, fleet, until
from support.commands.process import Running

pytestmark = pytest.mark.system

DAY_MS = 86_400_000


def policy(redis: RedisServer) -> FleetPolicy:
    return FleetPolicy(RedisAddress.parse(redis.url), "a", required=False)


def names(redis: RedisServer) -> tuple[str, str, str]:
    return keys(policy(redis).prefix(), policy(redis).common_prefix())


def now_ms() -> int:
    return int(time.time() * 1000)


@asynccontextmanager
async def bus_of(redis: RedisServer, name: str) -> AsyncIterator[RedisBus]:
    bus = RedisBus(policy(redis), name)
    bus.start(lambda _: None, lambda _: None, lambda _: None)
    try:
        await eventually.until(lambda: bus.connected)
        yield bus
    finally:
        await bus.stop()


def names_evil(proxy: Running) -> bool:
    events = proxy.all_events()
    return any(event["event"] == "fleet_message_invalid" and event["sender"] == "evil" for event in events)


async def leads(bus: RedisBus) -> Won:
    """Asserts that a replica can take the lease, and renew it with what the next one needs."""
    won = await bus.campaign(0)
    assert won is not None
    assert abs(won.epoch - now_ms()) < 60_000
    assert await bus.renew(won.epoch, 1, b"beat", b"kept") == won.others
    return won


@pytest.mark.parametrize("value", ["", "evil", "x evil", f"{10**30} evil", f"{2**53} evil", "-1 evil", "nan evil"])
async def test_a_lease_that_no_replica_has_written_is_void(redis: RedisServer, value: str) -> None:
    redis.ask("SET", names(redis)[0], value)
    async with bus_of(redis, "a") as bus:
        await leads(bus)


@pytest.mark.parametrize("which", range(3))
async def test_a_key_of_another_type_stops_no_fleet(redis: RedisServer, which: int) -> None:
    redis.ask("RPUSH", names(redis)[which], "evil")
    async with bus_of(redis, "a") as bus, bus_of(redis, "b") as other:
        won = await leads(bus)
        redis.ask("DEL", names(redis)[which])
        redis.ask("RPUSH", names(redis)[which], "evil")
        assert await bus.renew(won.epoch, 1, b"beat", b"latest") == 0
        await bus.resign(won.epoch)
        later = await other.campaign(won.epoch)
        assert later is not None
        assert later.kept == b"latest"


@pytest.mark.parametrize("expiry", [(), ("EX", "9999")])
async def test_a_lease_without_an_expiry_or_with_a_late_one_expires_soon(
    redis: RedisServer, expiry: tuple[str, ...]
) -> None:
    redis.ask("SET", names(redis)[0], f"{now_ms()} evil", *expiry)
    async with bus_of(redis, "a") as bus:
        assert await bus.campaign(0) is None
        await asyncio.sleep(1.1)
        await leads(bus)


@pytest.mark.parametrize("at_ms", ["", "evil", "nan", "inf", "-inf", "1e400", str(10**30), f"-{10**30}"])
async def test_kept_limits_have_an_age_whatever_is_written(redis: RedisServer, at_ms: str) -> None:
    redis.ask("HSET", names(redis)[1], "at_ms", at_ms, "beliefs", "kept")
    async with bus_of(redis, "a") as bus:
        won = await leads(bus)
        assert won.kept == b"kept"
        assert 0.0 <= won.kept_age_s <= 1e6


async def test_kept_limits_that_are_too_long_are_left_in_redis(redis: RedisServer) -> None:
    redis.ask("HSET", names(redis)[1], "at_ms", "1", "beliefs", "x" * (9 << 20))
    async with bus_of(redis, "a") as bus:
        assert (await leads(bus)).kept == b""


@pytest.mark.parametrize(
    ("value", "others"),
    [
        ("evil", 0),
        (f"{PROTOCOL + 1} NOW 3;", 3),
        (f"{PROTOCOL + 1} NOW {10**30};", 1000),
        (f"{PROTOCOL + 1} NOW {'9' * 400};", 1000),
        (f"{PROTOCOL + 1} {10**30} 3;", 0),
        ("".join(f"{PROTOCOL + n} NOW 3;" for n in range(1, 1000)), 0),
    ],
)
async def test_other_versions_have_a_number_of_replicas_that_a_fleet_can_have(
    redis: RedisServer, value: str, others: int
) -> None:
    async with bus_of(redis, "a") as bus:
        # An entry counts for 2 s before and after its instant: this one for 3.5 s.
        redis.ask("SET", names(redis)[2], value.replace("NOW", str(now_ms() + 1500)))
        assert (await leads(bus)).others == others


@pytest.mark.parametrize("epoch", [2**53 - 1, 2**62])
async def test_an_epoch_that_no_leader_can_have_had_is_refused(redis: RedisServer, epoch: int) -> None:
    async with bus_of(redis, "a") as bus:
        with pytest.raises(EpochVoid, match="far ahead of the clock of Redis"):
            await bus.campaign(epoch)
        with pytest.raises(EpochVoid):
            await bus.campaign(now_ms() + 2 * DAY_MS)
        won = await bus.campaign(now_ms() + DAY_MS // 2)
        assert won is not None
        assert won.epoch > now_ms() + DAY_MS // 3


def test_real_proxies_name_the_sender_of_an_invented_epoch_and_serve_all_the_time(redis: RedisServer) -> None:
    beat = seal("evil", 2**53 - 1, 1.0, [{"t": "beat", "replicas": 3}]).decode()
    with fleet(redis.url, 2) as proxies:
        until(lambda: coordinated(proxies))
        (lease,) = (line for line in redis.ask("KEYS", "*:lease").decode().split("\r\n") if line.endswith(":lease"))
        with Callers(proxies, 2) as callers:
            redis.ask("PUBLISH", lease.removesuffix("lease") + "all", beat)
            until(lambda: all(names_evil(proxy) for proxy in proxies))
            until(lambda: coordinated(proxies))
        assert set(callers.statuses) == {200}
