"""A replica that asks its bus for new connections, since the present ones may be faulty."""

import pytest

from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support import eventually
from support.gate.fake_redis import fake_redis

pytestmark = pytest.mark.system  # redis-py is an extra

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"


async def test_a_bus_connects_anew_once_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_redis() as redis:
        redis.replies = {b"SUBSCRIBE": SUBSCRIBED}
        address = RedisAddress.parse(f"redis://127.0.0.1:{redis.port}")
        bus, lost = RedisBus(FleetPolicy(address, "a", required=False), "a"), list[str]()
        bus.reconnect("before the start")
        bus.start(lambda _: None, lost.append, lambda _: None)
        await eventually.until(lambda: bus.connected)
        bus.reconnect("it is slow")
        bus.reconnect("it is slow")
        await eventually.until(lambda: bool(lost) and bus.connected)
        assert lost == [f"it is slow (127.0.0.1:{redis.port})"]

        bus.reconnect("it is slow")
        assert await eventually.stable(lambda: len(lost)) == 1

        monkeypatch.setattr(bus, "_may_reconnect_at_s", 0.0)  # a minute later
        bus.reconnect("it is slow")
        await eventually.until(lambda: len(lost) == 2 and bus.connected)
        await bus.stop()
