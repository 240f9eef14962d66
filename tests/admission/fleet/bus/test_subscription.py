"""A subscription to a server that falls silent, refuses or hangs up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from nanonets_proxy.admission.fleet.bus import subscription as module
from nanonets_proxy.admission.fleet.bus.subscription import Subscription
from nanonets_proxy.admission.fleet.bus.wire import Refused
from nanonets_proxy.core.ratelimit.fleet import lates
from support import eventually
from support.gate.fake_redis import FakeRedis, fake_redis

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"
PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


@dataclass
class Heard:
    running: "asyncio.Task[None]" = field(init=False)
    times_subscribed: int = 0
    times_slow: int = 0
    messages: list[bytes] = field(default_factory=list)

    def subscribed(self) -> None:
        self.times_subscribed += 1

    def slow(self) -> None:
        self.times_slow += 1


@asynccontextmanager
async def subscribed() -> AsyncIterator[tuple[FakeRedis, Heard]]:
    heard = Heard()
    async with fake_redis() as redis:
        own = Subscription(redis.dial, (b"a", b"b"), heard.subscribed, heard.messages.append, heard.slow)
        heard.running = asyncio.ensure_future(own.run())
        await redis.has_got(b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n")
        try:
            yield redis, heard
        finally:
            heard.running.cancel()


async def test_messages_are_heard_after_all_channels_are_confirmed() -> None:
    async with subscribed() as (redis, heard):
        redis.respond(SUBSCRIBED[: len(SUBSCRIBED) // 2])
        redis.respond(SUBSCRIBED[len(SUBSCRIBED) // 2 :] + MESSAGE + PONG + MESSAGE)
        await eventually.until(lambda: heard.messages == [b"hi", b"hi"])
        assert heard.times_subscribed == 1


async def test_a_refused_channel_ends_it() -> None:
    async with subscribed() as (redis, heard):
        redis.respond(b"-NOPERM no channel\r\n")
        with pytest.raises(Refused, match="SUBSCRIBE: NOPERM no channel"):
            await heard.running
        assert heard.times_subscribed == 0


async def test_a_reply_of_another_command_ends_it() -> None:
    async with subscribed() as (redis, heard):
        redis.respond(b":1\r\n")
        with pytest.raises(TypeError, match="1 is not of a subscription"):
            await heard.running


async def test_a_server_that_hangs_up_ends_it() -> None:
    async with subscribed() as (redis, heard):
        redis.close()
        with pytest.raises(ConnectionResetError):
            await heard.running


async def test_a_server_that_does_not_answer_a_ping_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    async with subscribed() as (redis, heard):
        redis.respond(SUBSCRIBED)
        with pytest.raises(TimeoutError, match="the subscription is silent"):
            await heard.running
        await redis.ended.wait()
        assert b"*1\r\n$4\r\nPING\r\n" in redis.got


async def test_a_server_that_answers_each_ping_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    monkeypatch.setattr(module, "READ_S", 2.0)
    async with subscribed() as (redis, heard):
        redis.replies = {b"PING": PONG}
        await eventually.until(lambda: redis.got.count(b"PING") >= 3)
        assert not heard.running.done()


@pytest.mark.parametrize(("late_s", "slow"), [(-1.0, True), (60.0, False)])
async def test_a_server_that_answers_the_pings_late_is_slow_although_it_tells_messages(
    monkeypatch: pytest.MonkeyPatch, late_s: float, *, slow: bool
) -> None:
    """The messages, too, may have been on their way for long."""
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    monkeypatch.setattr(module, "READ_S", 2.0)
    monkeypatch.setattr(lates, "LATE_S", late_s)
    async with subscribed() as (redis, heard):
        redis.replies = {b"PING": PONG + MESSAGE}
        await eventually.until(lambda: redis.got.count(b"PING") > lates.MOST_LATE)
        assert (heard.times_slow > 0) is slow
        assert not heard.running.done()
