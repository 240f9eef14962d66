"""A name server, or a host of Redis, that does not respond while the bus looks for its server."""

import asyncio
import socket
import threading

import pytest

from nanonets_proxy.admission.fleet.bus import client, redis_bus
from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support import eventually
from support.gate.fake_redis import fake_redis

pytestmark = pytest.mark.system  # redis-py is an extra

URLS = (
    "redis://redis.example:6379",
    "redis+sentinel://redis.example:26379/main",
    "redis+cluster://redis.example:6379",
)


class Resolver:
    """Looks one name up for as long as the test lasts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = 0
        self.may_end = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *args: object, **options: object) -> object:
        if host != "redis.example":
            return self._real(host, *args, **options)
        self.running += 1
        self.may_end.wait()
        raise socket.gaierror(-3, "Temporary failure in name resolution")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    for name in ("TIMEOUT_S", "_TO_ASK_S"):
        monkeypatch.setattr(client, name, 0.01)
    monkeypatch.setattr(redis_bus, "_PAUSES_S", (0.001, 0.001))
    return Resolver(monkeypatch)


@pytest.mark.parametrize("url", URLS)
async def test_attempts_to_connect_pile_up_no_look_ups(resolver: Resolver, url: str) -> None:
    """All names are looked up by a few threads, also that of the upstream: callers would wait behind them."""
    bus = RedisBus(FleetPolicy(RedisAddress.parse(url), "a", required=False), "a")
    attempts = 0
    lose = bus._lose

    def count(reason: str) -> None:
        nonlocal attempts
        attempts += 1
        lose(reason)

    bus._lose = count  # type: ignore[method-assign]
    bus.start(lambda _: None, lambda _: None, lambda _: None)
    await eventually.until(lambda: attempts >= 5)
    assert resolver.running == 1
    assert "the look-up of the name redis.example takes longer than 0.01 s" in bus.fault
    resolver.may_end.set()
    await eventually.until(lambda: "Temporary failure in name resolution" in bus.fault)
    await bus.stop()


@pytest.mark.parametrize("url", URLS)
async def test_a_start_does_not_wait_for_the_name_server(resolver: Resolver, url: str) -> None:
    async with asyncio.timeout(eventually.WAIT_S):
        fault = await check(FleetPolicy(RedisAddress.parse(url), "a", required=False))
    assert "the look-up of the name redis.example takes longer than 0.01 s" in str(fault)
    resolver.may_end.set()


@pytest.mark.parametrize("kind", ["redis+sentinel://{}/main", "redis+cluster://{}"])
async def test_the_reason_names_the_host_that_does_not_respond(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(client, "_TO_ASK_S", 0.05)
    async with fake_redis() as redis:
        host = f"127.0.0.1:{redis.port}"
        fault = await check(FleetPolicy(RedisAddress.parse(kind.format(host)), "a", required=False))
    assert str(fault).endswith(f" cannot be reached: {host} does not respond")
